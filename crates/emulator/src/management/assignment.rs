//! The member `identity` of a resource, which is the same for all that have identities (Microsoft: resource-manager common
//! types, `ManagedServiceIdentity`).

use aws_lc_rs::digest;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::answers::refusal;
use crate::cloud::Cloud;
use crate::directory::{Identity, IdentityKind};
use crate::exchange::{Answer, Call};

/// A resource with its identities.
pub(super) struct Assigned<'a> {
    /// Resource id.
    pub(super) id: &'a str,
    pub(super) identities: &'a [Identity],
    /// Makes an identity of the resource's own.
    pub(super) own: &'a dyn Fn() -> Identity,
}

impl Assigned<'_> {
    /// The identities that the resource is to have. A patch adds to the user-assigned ones and takes away those that are
    /// `null`; a type without them takes all away.
    pub(super) fn wanted(
        &self,
        cloud: &Cloud,
        identity: &Value,
        is_patch: bool,
    ) -> Result<Vec<Identity>, Answer> {
        let kind = identity.get("type").and_then(Value::as_str).unwrap_or("None");
        let kinds: Vec<&str> = kind.split(',').map(str::trim).collect();
        let has = |word: &str| kinds.iter().any(|kind| kind.eq_ignore_ascii_case(word));
        let known = |kind: &&str| {
            ["SystemAssigned", "UserAssigned", "None"].iter().any(|known| kind.eq_ignore_ascii_case(known))
        };
        if !kinds.iter().all(known) {
            let message = format!("The value '{kind}' of identity type is not supported.");
            return Err(refusal(StatusCode::BAD_REQUEST, "InvalidIdentityType", &message));
        }
        let mut wanted = Vec::new();
        if has("SystemAssigned") {
            let present = self.identities.iter().find(|one| one.kind == IdentityKind::SystemAssigned);
            wanted.push(present.cloned().unwrap_or_else(self.own));
        }
        if !has("UserAssigned") {
            return Ok(wanted);
        }
        let present = self.identities.iter().filter(|one| one.kind == IdentityKind::UserAssigned);
        let mut user_assigned: Vec<_> = if is_patch { present.cloned().collect() } else { Vec::new() };
        let none = Map::new();
        let named = identity.get("userAssignedIdentities").and_then(Value::as_object).unwrap_or(&none);
        for (id, value) in named {
            let same = |identity: &Identity| identity.resource_id.eq_ignore_ascii_case(id);
            if value.is_null() {
                user_assigned.retain(|identity| !same(identity));
            } else if !user_assigned.iter().any(same) {
                let found = cloud.subscription.identities().into_iter().find(same);
                user_assigned.push(found.ok_or_else(|| self.unknown(id))?);
            }
        }
        if user_assigned.is_empty() {
            let message = "The identity type 'UserAssigned' requires at least one user assigned identity.";
            return Err(refusal(StatusCode::BAD_REQUEST, "InvalidParameter", message));
        }
        wanted.extend(user_assigned);
        Ok(wanted)
    }

    /// The member; none where there is no identity.
    pub(super) fn shown(&self, cloud: &Cloud) -> Option<Value> {
        let of = |kind| self.identities.iter().filter(move |one| one.kind == kind);
        let own = of(IdentityKind::SystemAssigned).next();
        let others: Vec<_> = of(IdentityKind::UserAssigned).collect();
        let kind = match (&own, others.is_empty()) {
            (None, true) => return None,
            (None, false) => "UserAssigned",
            (Some(_), true) => "SystemAssigned",
            (Some(_), false) => "SystemAssigned, UserAssigned",
        };
        let mut identity = json!({ "type": kind });
        if let Some(own) = own {
            identity["principalId"] = json!(own.object_id);
            identity["tenantId"] = json!(cloud.directory.ids.tenant);
        }
        if !others.is_empty() {
            let others = others.into_iter().map(|other| {
                let ids = json!({ "principalId": other.object_id, "clientId": other.client_id });
                (other.resource_id.clone(), ids)
            });
            identity["userAssignedIdentities"] = others.collect();
        }
        Some(identity)
    }

    /// What stands for the identities, in quotes as entity tags are (RFC 9110 section 8.8.3).
    pub(super) fn etag(&self) -> String {
        let ids: Vec<_> = self.identities.iter().map(|one| one.object_id.to_string()).collect();
        let digest = digest::digest(&digest::SHA256, ids.join(",").as_bytes());
        let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("\"{hex}\"")
    }

    /// `Err` where the request is for another state (`If-Match`).
    pub(super) fn unchanged(&self, call: &Call) -> Result<(), Answer> {
        if call.header("if-match").is_some_and(|wanted| wanted != "*" && wanted != self.etag()) {
            let message = "The condition in the request header 'If-Match' was not satisfied.";
            return Err(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message));
        }
        Ok(())
    }

    fn unknown(&self, identity: &str) -> Answer {
        let message = format!(
            "Identity operation for resource '{}' failed with error 'Failed to perform resource identity operation. \
             Status: 'BadRequest'. Response: '{{\"error\":{{\"code\":\"BadRequest\",\"message\":\"Resource '{identity}' was \
             not found.\"}}}}'.'.",
            self.id
        );
        refusal(StatusCode::BAD_REQUEST, "FailedIdentityOperation", &message)
    }
}
