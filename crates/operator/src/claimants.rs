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
                let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                faults.push(format!("spec.server: {error}{hint}"));
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

/// A resource as one that claims roles. One that cannot be read claims what is in its status alone.
pub(crate) fn claimant(resource: &PostgresRoles, servers: &AllowedServers) -> Claimant {
    let status = resource.status.clone().unwrap_or_default();
    let read = read(resource, servers).ok();
    let server = match servers.target(&resource.spec.server) {
        Ok(target) => names(&target, status.system_identifier),
        Err(_) => ServerNames { identifier: status.system_identifier, ..ServerNames::default() },
    };
    let wanted = read.map(|read| wanted(&read.file)).unwrap_or_default();
    Claimant {
        uid: resource.uid().unwrap_or_default(),
        created: resource.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        name: full_name(resource),
        server,
        wanted,
        held: status.roles.into_iter().map(|role| role.name).collect(),
        // One that is deleted names nothing any more; what it holds is held until it is gone.
        applies: resource.spec.policy == RolesPolicy::Apply && resource.meta().deletion_timestamp.is_none(),
    }
}

fn wanted(file: &RolesFile) -> BTreeMap<String, Option<uuid::Uuid>> {
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
