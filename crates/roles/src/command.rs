//! Single roles, made and dropped without a file.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::change::{Change, Principal};
use super::desired::PrincipalRef;
use super::error::RolesError;
use super::fault::Diagnostics;
use super::name;
use super::obstacles::obstacles;
use super::plan::{Plan, object_id};
use super::prune::{clearing, dropping};
use super::read::Roles;
use super::server::{PRINCIPALS, ServerSessions};
use super::sql;
use super::{Flavour, ObjectType, RoleName};
use crate::directory::Directory;
use pgentra_connect::quote;

/// Time limit for the look-up of a principal's kind. It may be short, because the server checks the kind too.
const LOOK_UP: Duration = Duration::from_secs(5);

/// A role to be made.
#[derive(Debug, Clone)]
pub struct NewRole {
    /// The name of the new role.
    pub name: RoleName,
    /// The kind of the Entra principal.
    pub kind: ObjectType,
    /// The Entra principal that it will be mapped to.
    pub identity: PrincipalRef,
    /// Whether it administers Entra roles. Flexible Server only.
    pub is_admin: bool,
    /// Whether its tokens must tell of a second factor. Flexible Server only.
    pub is_mfa: bool,
}

impl NewRole {
    /// The plan that makes it.
    ///
    /// # Errors
    /// What is known to be wrong before anything is written.
    pub async fn plan(
        &self,
        server: &ServerSessions,
        directory: Option<&dyn Directory>,
    ) -> Result<Plan, RolesError> {
        let principals = server.open(PRINCIPALS).await?;
        principals.begin_reading().await?;
        let roles = Roles::read(principals.client()).await?;
        let mut role = Principal {
            role: self.name.to_string(),
            kind: self.kind,
            identity: self.identity,
            is_admin: self.is_admin,
            is_mfa: self.is_mfa,
        };
        if roles.all.contains_key(&role.role) {
            return Err(RolesError::Exists(role.role));
        }
        if let Some(why) = sql::impossible(roles.flavour(), &role, true) {
            return Err(Diagnostics::one(why).into());
        }
        if let (Flavour::Flexible, PrincipalRef::ClientId(client_id)) = (roles.flavour(), self.identity) {
            let id = object_id(client_id, directory).await?;
            let unknown = || {
                Diagnostics::one(format!("the tenant has no service principal with client id {client_id}"))
            };
            role.identity = PrincipalRef::ObjectId(id.ok_or_else(unknown)?);
        }
        if let (Flavour::Flexible, PrincipalRef::ObjectId(id)) = (roles.flavour(), role.identity) {
            check_kind(id, self.kind, directory).await?;
        }
        Ok(Plan::of(vec![Change::Create(role)], &roles))
    }
}

/// Fails if the principal is of another kind in the tenant. An administrator of a server need not be allowed to read the
/// directory: without an answer the server checks the kind.
async fn check_kind(id: Uuid, kind: ObjectType, directory: Option<&dyn Directory>) -> Result<(), RolesError> {
    let Some(directory) = directory else { return Ok(()) };
    let actual = match tokio::time::timeout(LOOK_UP, directory.kind(id)).await {
        Ok(Ok(actual)) => actual,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the tenant does not say what the principal is");
            None
        }
        Err(_) => None,
    };
    let Some(actual) = actual.filter(|actual| *actual != kind) else { return Ok(()) };
    let what = match actual {
        ObjectType::Service => "a managed identity or an application",
        ObjectType::User => "a user",
        ObjectType::Group => "a group",
    };
    let message = format!("{id} is {what} in the tenant, and the role would be of kind {kind}");
    let hint = match actual {
        ObjectType::Service => "say --kind service",
        ObjectType::User => "say --kind user",
        ObjectType::Group => "say --kind group",
    };
    Err(Diagnostics::one(message).hinting(hint).into())
}

/// A role to be dropped.
#[derive(Debug, Clone, Default)]
pub struct RoleDrop {
    /// The name of the role to drop.
    pub name: String,
    /// Who gets what it owns; its privileges are revoked, too. Default: none, and a role that owns an object is not dropped.
    pub reassign_to: Option<String>,
    /// Whether its privileges are revoked. Default: no, and a role that has privileges is not dropped.
    pub revoke: bool,
}

impl RoleDrop {
    /// The plan that drops it.
    ///
    /// # Errors
    /// A role that is not mapped, who is signed in, or the last administrator; or what is in the way.
    pub async fn plan(&self, server: &ServerSessions) -> Result<Plan, RolesError> {
        let principals = server.open(PRINCIPALS).await?;
        principals.begin_reading().await?;
        let roles = Roles::read(principals.client()).await?;
        let role = roles.named(&self.name).ok_or_else(|| RolesError::NoSuchRole(self.name.clone()))?;
        if let Some(why) = protected(&roles, &role.name) {
            return Err(RolesError::NotDropped { name: self.name.clone(), why });
        }
        if let Some(heir) =
            self.reassign_to.as_ref().filter(|heir| !roles.all.contains_key(*heir) || **heir == self.name)
        {
            return Err(Diagnostics::one(format!(
                "there is no other role {heir} to reassign to",
                heir = quote::name(heir)
            ))
            .into());
        }
        let found = obstacles(server, &principals, role.oid).await?;
        let is_owner = found.iter().any(|found| found.is_owned());
        let heir = self.reassign_to.as_deref().filter(|_| is_owner);
        let may_clear = self.reassign_to.is_some() || self.revoke && !is_owner;
        if !found.is_empty() && !may_clear {
            return Err(RolesError::InTheWay { name: self.name.clone(), obstacles: found });
        }
        let changes = dropping(&principals, &roles, role, heir, &found).await?;
        Ok(Plan::of(changes, &roles))
    }
}

/// Roles to be dropped with their privileges: mapped roles and group roles. Those that are not there any more are skipped, and so
/// is another role that has the name now.
#[derive(Debug, Clone, Default)]
pub struct RolesDrop {
    /// Each role's name and its number (`oid`), which PostgreSQL gives to no later role.
    pub roles: BTreeMap<String, u32>,
}

impl RolesDrop {
    /// The plan that drops them.
    ///
    /// # Errors
    /// A role that owns an object, can sign in otherwise than by Entra, is who is signed in, or is the last administrator.
    pub async fn plan(&self, server: &ServerSessions) -> Result<Plan, RolesError> {
        let principals = server.open(PRINCIPALS).await?;
        principals.begin_reading().await?;
        let roles = Roles::read(principals.client()).await?;
        let mut changes = Vec::new();
        for (name, oid) in &self.roles {
            let Some(any) = roles.all.get(name).filter(|any| any.oid == *oid) else { continue };
            let mapped = roles.named(name);
            if let Some(why) = protected(&roles, name) {
                return Err(RolesError::NotDropped { name: name.clone(), why });
            }
            let found = obstacles(server, &principals, any.oid).await?;
            if found.iter().any(|found| found.is_owned()) {
                return Err(RolesError::InTheWay { name: name.clone(), obstacles: found });
            }
            changes.extend(match mapped {
                Some(role) => dropping(&principals, &roles, role, None, &found).await?,
                None => clearing(&principals, name, None, &found).await?,
            });
        }
        Ok(Plan::of(changes, &roles))
    }
}

/// Why a role is not dropped.
fn protected(roles: &Roles, name: &str) -> Option<&'static str> {
    let mapped = roles.named(name);
    if name::is_reserved(name) {
        Some("it is the server's own")
    } else if name == roles.session_user {
        Some("it is who is signed in")
    } else if mapped.is_some_and(|role| role.is_admin)
        && roles.entra().iter().filter(|role| role.is_admin).count() == 1
    {
        Some("it is the last administrator")
    } else if mapped.is_none() && !roles.is_group(name) {
        Some("it is neither mapped to a principal nor a group role")
    } else {
        None
    }
}
