//! The resources of the cluster as those who claim roles.

use std::collections::BTreeMap;

use kube::{Resource as _, ResourceExt as _};
use pgentra_connect::Target;
use pgentra_roles::{PrincipalRef, RolesFile};

use crate::claims::{Claimant, ServerNames};
use crate::resource::{PostgresRoles, RolesPolicy};
use crate::servers::{AllowedServers, names};

/// What a resource says, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) target: Target,
    pub(crate) file: RolesFile,
}

/// Reads the connection string and the document of a resource.
///
/// # Errors
/// Everything that is wrong with both.
pub(crate) fn read(resource: &PostgresRoles, servers: &AllowedServers) -> Result<Read, Vec<String>> {
    let target = servers.target(&resource.spec.server);
    let database = target.as_ref().map_or("", Target::database);
    let file = RolesFile::from_json(&resource.spec.document(), database);
    match (target, file) {
        (Ok(target), Ok(file)) => Ok(Read { target, file }),
        (target, file) => {
            let mut faults = Vec::new();
            if let Err(error) = target {
                faults.push(crate::failure::told(&error));
            }
            if let Err(error) = file {
                faults.extend(error.all().iter().map(|fault| match fault.path.as_deref() {
                    Some(path) if !path.is_empty() => format!("spec.{fault}"),
                    _ => format!("spec: {fault}"),
                }));
            }
            Err(faults)
        }
    }
}

/// What a resource claims. If it cannot be read, it claims the roles in its status.
pub(crate) fn claimant(resource: &PostgresRoles, servers: &AllowedServers) -> Claimant {
    let status = resource.status.clone().unwrap_or_default();
    let read = read(resource, servers).ok();
    let server = match servers.target(&resource.spec.server) {
        Ok(target) => names(&target, status.system_identifier),
        Err(_) => ServerNames { identifier: status.system_identifier, ..ServerNames::default() },
    };
    let wanted = read.map(|read| wanted(&read.file));
    // A resource that only plans will not drop what it does not name any more, so another one may have that.
    let lets_go = |name: &String| {
        resource.spec.policy == RolesPolicy::Plan
            && wanted.as_ref().is_some_and(|wanted| !wanted.contains_key(name))
    };
    let held = status.roles.into_iter().map(|role| role.name).filter(|name| !lets_go(name)).collect();
    Claimant {
        uid: resource.uid().unwrap_or_default(),
        created: resource.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        name: full_name(resource),
        server,
        held,
        wanted: wanted.unwrap_or_default(),
        // A resource that is being deleted takes no more roles, and holds its own until it is gone.
        applies: resource.spec.policy == RolesPolicy::Apply && resource.meta().deletion_timestamp.is_none(),
    }
}

/// The roles of a document, each with the id of its principal if it names one.
pub(crate) fn wanted(file: &RolesFile) -> BTreeMap<String, Option<uuid::Uuid>> {
    let roles = file.roles().iter();
    roles
        .map(|role| {
            let principal = match role.identity() {
                PrincipalRef::ObjectId(id) | PrincipalRef::ClientId(id) => Some(id),
                PrincipalRef::Name => None,
            };
            (role.name().to_string(), principal)
        })
        .collect()
}

/// `NAMESPACE/NAME`.
pub(crate) fn full_name(resource: &PostgresRoles) -> String {
    format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any())
}

#[cfg(test)]
mod tests {
    use pgentra_identity::IdentityOptions;
    use pgentra_system::System;
    use serde_json::{Value, json};

    use super::*;

    fn servers() -> AllowedServers {
        // The source is named: the machine of the test need not have an identity. No token is asked for.
        let source = Some(pgentra_identity::SourceName::Imds);
        let identity = IdentityOptions { source, ..IdentityOptions::default() };
        AllowedServers::new(&System::real(), &identity, Vec::new(), None).unwrap()
    }

    #[test]
    fn a_resource_that_plans_lets_go_what_it_does_not_name_any_more() {
        let held = |policy: &str, role: Value| {
            let server = "postgresql://operator@one.example.com/app";
            let spec = json!({ "server": server, "policy": policy, "role": [role] });
            let roles = json!([{ "name": "a", "created": true }, { "name": "b", "created": true }]);
            claimant(&resource(spec, json!({ "roles": roles })), &servers()).held
        };
        let (a, both) = (["a".to_owned()].into(), ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(held("plan", json!({ "name": "a" })), a);
        assert_eq!(held("apply", json!({ "name": "a" })), both);
        assert_eq!(held("plan", json!({ "name": "a", "member_of": [1] })), both, "it cannot be read");
    }

    fn resource(spec: Value, status: Value) -> PostgresRoles {
        let metadata = json!({
            "namespace": "team", "name": "one", "uid": "7", "creationTimestamp": "2026-11-29T14:00:00Z",
        });
        serde_json::from_value(json!({
            "apiVersion": "pgentra.dev/v1alpha1", "kind": "PostgresRoles",
            "metadata": metadata, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_wrong_with_the_server_and_with_the_document_is_told_at_once() {
        let role = json!({ "name": "a", "login": false, "member_of": [1, "a"] });
        let spec = json!({ "server": "postgresql://one.example.com/app?sslmode=disable", "role": [role] });
        let faults = read(&resource(spec, Value::Null), &servers()).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("spec.server: "), "{faults:?}");
        assert!(faults[1].starts_with("spec.role[0].member_of[0]: "), "{faults:?}");
        assert!(faults[2].starts_with("spec.role[0].member_of[1]: "), "{faults:?}");
    }

    #[test]
    fn a_resource_claims_what_it_names_and_has_what_is_in_its_status() {
        let id = "00000000-1111-2222-3333-444444444444";
        let spec = json!({
            "server": "host=A.example.com,b.example.com port=5432,6432 user=operator dbname=app",
            "role": [{ "name": "mapped", "object_id": id }],
            "schema": [{ "name": "shop", "read_only": "shop_ro" }],
        });
        let status = json!({ "systemIdentifier": "9", "roles": [{ "name": "before", "created": true }] });
        let claims = claimant(&resource(spec, status), &servers());
        let wanted = [("mapped".to_owned(), id.parse().ok()), ("shop_ro".to_owned(), None)];
        assert_eq!(claims.wanted, wanted.into());
        assert_eq!(claims.held, ["before".to_owned()].into());
        let endpoints = ["a.example.com:5432".to_owned(), "b.example.com:6432".to_owned()];
        assert_eq!(claims.server.endpoints, endpoints.into());
        assert_eq!(claims.server.identifier.as_deref(), Some("9"));
        assert_eq!((&*claims.name, claims.created, claims.applies), ("team/one", 1_795_960_800, true));
    }
}
