//! The virtual machine and its identities (Microsoft: qs-configure-rest-vm; Microsoft.Compute/virtualMachines).

use aws_lc_rs::digest;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::answers::{body, collection, json_answer, refusal};
use super::operations;
use super::resource_groups::{LOCATION, is_home, only, resource_id};
use crate::cloud::Cloud;
use crate::directory::{Identity, IdentityKind, RESOURCE_GROUP};
use crate::exchange::{Answer, Call};
use crate::subscription::Effect;

const PROVIDER: &str = "Microsoft.Compute";
const KIND: &str = "Microsoft.Compute/virtualMachines";

/// `GET …/virtualMachines/{name}`
pub(super) fn show(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    only(cloud, KIND, (group, name), &cloud.directory.vm.name)?;
    Ok(json_answer(shown(cloud)))
}

/// `GET …/virtualMachines`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)?;
    Ok(collection(here.then(|| shown(cloud)).into_iter().collect()))
}

/// `PATCH` or `PUT …/virtualMachines/{name}`: of all that a machine has, its identities alone can change here.
pub(super) fn change(cloud: &Cloud, call: &Call, group: &str, name: &str) -> Result<Answer, Answer> {
    only(cloud, KIND, (group, name), &cloud.directory.vm.name)?;
    let body = body(call)?;
    let etag = etag(cloud);
    if call.header("if-match").is_some_and(|wanted| wanted != "*" && wanted != etag) {
        let message = "The condition in the request header 'If-Match' was not satisfied.";
        return Err(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message));
    }
    match body.get("identity") {
        // A request without the member leaves the identities unchanged.
        None | Some(Value::Null) if call.method == Method::PATCH => {}
        identity => {
            let wanted = wanted(cloud, identity.unwrap_or(&Value::Null), call.method == Method::PATCH)?;
            cloud.machine.set(wanted);
            cloud.subscription.principals_changed();
        }
    }
    let operation = operations::start(cloud, &id(cloud), Effect::None);
    Ok(operations::announced(cloud, json_answer(shown(cloud)), PROVIDER, &operation))
}

/// The identities that the machine is to have. A patch adds to the user-assigned ones and takes away those that are
/// `null`; a type without them takes all away.
fn wanted(cloud: &Cloud, identity: &Value, is_patch: bool) -> Result<Vec<Identity>, Answer> {
    let kind = identity.get("type").and_then(Value::as_str).unwrap_or("None");
    let kinds: Vec<&str> = kind.split(',').map(str::trim).collect();
    let has = |word: &str| kinds.iter().any(|kind| kind.eq_ignore_ascii_case(word));
    if !kinds.iter().all(|kind| ["SystemAssigned", "UserAssigned", "None"].contains(kind)) {
        let message = format!("The value '{kind}' of identity type is not supported.");
        return Err(refusal(StatusCode::BAD_REQUEST, "InvalidIdentityType", &message));
    }
    let mut wanted = Vec::new();
    if has("SystemAssigned") {
        wanted.push(cloud.machine.system_assigned().unwrap_or_else(|| cloud.directory.new_principal_of_vm()));
    }
    if !has("UserAssigned") {
        return Ok(wanted);
    }
    let mut user_assigned = if is_patch { cloud.machine.user_assigned() } else { Vec::new() };
    let none = Map::new();
    let named = identity.get("userAssignedIdentities").and_then(Value::as_object).unwrap_or(&none);
    for (id, value) in named {
        let same = |identity: &Identity| identity.resource_id.eq_ignore_ascii_case(id);
        if value.is_null() {
            user_assigned.retain(|identity| !same(identity));
        } else if !user_assigned.iter().any(same) {
            let found = cloud.subscription.identities().into_iter().find(same);
            user_assigned.push(found.ok_or_else(|| unknown(cloud, id))?);
        }
    }
    if user_assigned.is_empty() {
        let message = "The identity type 'UserAssigned' requires at least one user assigned identity.";
        return Err(refusal(StatusCode::BAD_REQUEST, "InvalidParameter", message));
    }
    wanted.extend(user_assigned);
    Ok(wanted)
}

fn unknown(cloud: &Cloud, identity: &str) -> Answer {
    let message = format!(
        "Identity operation for resource '{}' failed with error 'Failed to perform resource identity operation. Status: \
         'BadRequest'. Response: '{{\"error\":{{\"code\":\"BadRequest\",\"message\":\"Resource '{identity}' was not \
         found.\"}}}}'.'.",
        id(cloud)
    );
    refusal(StatusCode::BAD_REQUEST, "FailedIdentityOperation", &message)
}

fn shown(cloud: &Cloud) -> Value {
    let directory = &cloud.directory;
    let runs = cloud.subscription.running(&id(cloud), cloud.clock.unix()).is_some();
    let mut machine = json!({
        "name": directory.vm.name,
        "id": id(cloud),
        "type": KIND,
        "location": LOCATION,
        "etag": etag(cloud),
        "properties": {
            "hardwareProfile": { "vmSize": "Standard_B1s" },
            "provisioningState": if runs { "Updating" } else { "Succeeded" },
            "vmId": directory.ids.vm_id,
        },
    });
    if let Some(identity) = identity(cloud) {
        machine["identity"] = identity;
    }
    machine
}

/// What stands for the machine's state, in quotes as entity tags are (RFC 9110 section 8.8.3).
fn etag(cloud: &Cloud) -> String {
    let ids: Vec<_> = cloud.machine.identities().iter().map(|one| one.object_id.to_string()).collect();
    let digest = digest::digest(&digest::SHA256, ids.join(",").as_bytes());
    let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn identity(cloud: &Cloud) -> Option<Value> {
    let (own, others) = (cloud.machine.system_assigned(), cloud.machine.user_assigned());
    let kind = match (&own, others.is_empty()) {
        (None, true) => return None,
        (None, false) => "UserAssigned",
        (Some(_), true) => "SystemAssigned",
        (Some(_), false) => "SystemAssigned, UserAssigned",
    };
    let mut identity = json!({ "type": kind });
    if let Some(Identity { object_id, kind: IdentityKind::SystemAssigned, .. }) = own {
        identity["principalId"] = json!(object_id);
        identity["tenantId"] = json!(cloud.directory.ids.tenant);
    }
    if !others.is_empty() {
        let others = others.into_iter().map(|other| {
            (other.resource_id, json!({ "principalId": other.object_id, "clientId": other.client_id }))
        });
        identity["userAssignedIdentities"] = others.collect();
    }
    Some(identity)
}

fn id(cloud: &Cloud) -> String {
    resource_id(cloud, RESOURCE_GROUP, &format!("{KIND}/{}", cloud.directory.vm.name))
}
