//! Roles that are not in the file, and how they are dropped.

use std::collections::BTreeSet;

use pgentra_connect::quote;

use super::Flavour;
use super::change::{Change, Principal};
use super::dependency::Dependency;
use super::desired::{PrincipalRef, RolesFile};
use super::error::RolesError;
use super::fault::Diagnostic;
use super::name;
use super::obstacles;
use super::options::{Note, Options, Prune};
use super::read::{Role, Roles};
use super::server::{DatabaseSession, PRINCIPALS, ServerSessions};

/// A server whose roles are compared with a file.
pub(crate) struct Leftovers<'a> {
    pub(crate) server: &'a ServerSessions,
    pub(crate) principals: &'a DatabaseSession,
    pub(crate) roles: &'a Roles,
    pub(crate) file: &'a RolesFile,
    /// For each role of the file the name that it has.
    pub(crate) now: &'a [Option<String>],
}

impl Leftovers<'_> {
    /// What becomes of the roles that are not in the file: they are dropped, or noted.
    pub(crate) async fn look(
        &self,
        options: Options,
        faults: &mut Vec<Diagnostic>,
    ) -> Result<(Vec<Change>, Vec<Note>), RolesError> {
        let (mut changes, mut notes) = (Vec::new(), Vec::new());
        for role in self.roles.entra().iter().filter(|role| !self.is_in_file(&role.name)) {
            let is_pruned = match options.prune {
                Prune::Nothing => false,
                Prune::Roles => !role.is_admin,
                Prune::Administrators => true,
            };
            // PostgreSQL refuses to drop the session's own role, and with it the whole transaction.
            if !is_pruned || role.name == self.roles.session_user {
                notes.push(Note::NotInFile(role.name.clone()));
            } else if let Some(found) = self.obstacles(&role.name, role.oid, faults).await? {
                changes.extend(dropping(self.principals, self.roles, role, None, &found).await?);
            }
        }
        for (name, oid) in self.groups() {
            if !options.prune_groups {
                notes.push(Note::NotInFile(name.to_owned()));
            } else if let Some(found) = self.obstacles(name, oid, faults).await? {
                changes.extend(clearing(self.principals, name, None, &found).await?);
            }
        }
        Ok((changes, notes))
    }

    /// Group roles that the file does not name, where the file has group roles.
    fn groups(&self) -> Vec<(&str, u32)> {
        if !self.file.roles.iter().any(|role| role.is_group_role()) {
            return Vec::new();
        }
        let named: BTreeSet<&str> = self
            .file
            .roles
            .iter()
            .flat_map(|role| {
                let owners = role.defaults.iter().filter_map(|want| want.owner.as_deref());
                role.member_of.keys().map(String::as_str).chain(owners)
            })
            .collect();
        let is_left =
            |name: &str| !self.is_in_file(name) && !named.contains(name) && self.roles.is_group(name);
        self.roles
            .all
            .iter()
            .filter(|(name, _)| is_left(name))
            .map(|(name, any)| (&**name, any.oid))
            .collect()
    }

    fn is_in_file(&self, name: &str) -> bool {
        self.now.iter().flatten().any(|now| now == name)
    }

    /// What has to be cleared before the role can be dropped; `None` and a fault where it owns something.
    async fn obstacles(
        &self,
        name: &str,
        oid: u32,
        faults: &mut Vec<Diagnostic>,
    ) -> Result<Option<Vec<Dependency>>, RolesError> {
        let found = obstacles::obstacles(self.server, self.principals, oid).await?;
        // `DROP OWNED` would delete the objects with their data. A plan drops privileges, never data.
        if let Some(owned) = found.iter().find(|found| found.is_owned()) {
            let message = format!("the role {} is not in the file and {owned}", quote::name(name));
            faults.push(Diagnostic { message, ..Diagnostic::default() });
            return Ok(None);
        }
        Ok(Some(found))
    }
}

impl Roles {
    /// Whether a role is a group role that a file may have: no principal is mapped to it, it cannot sign in, and it is none
    /// of the server's own.
    pub(crate) fn is_group(&self, name: &str) -> bool {
        let is_plain = self.all.get(name).is_some_and(|any| !any.can_login && !any.is_powerful);
        is_plain && !name::is_reserved(name) && self.named(name).is_none()
    }
}

/// The changes that drop a role. An administrator loses that attribute first, as only the server's owner may drop an
/// administrator. If the session's user is not a member of the role, it becomes a member for the transaction.
pub(crate) async fn dropping(
    principals: &DatabaseSession,
    roles: &Roles,
    role: &Role,
    heir: Option<&str>,
    obstacles: &[Dependency],
) -> Result<Vec<Change>, RolesError> {
    let mut changes: Vec<Change> = demotion(roles, role).into_iter().collect();
    changes.extend(clearing(principals, &role.name, heir, obstacles).await?);
    Ok(changes)
}

/// The changes that drop a role that is no administrator.
pub(crate) async fn clearing(
    principals: &DatabaseSession,
    name: &str,
    heir: Option<&str>,
    obstacles: &[Dependency],
) -> Result<Vec<Change>, RolesError> {
    let mut joins = Vec::new();
    for group in [Some(name), heir].into_iter().flatten() {
        // `USAGE`, not `MEMBER`: `DROP OWNED` and `REASSIGN OWNED` check for the privileges of the role, which a member
        // without INHERIT does not have.
        let rows = principals.query("SELECT pg_has_role($1::text::name, 'USAGE')", &[&group]).await?;
        if !rows.iter().all(|row| row.get(0)) {
            joins.push(group.to_owned());
        }
    }
    // Dependencies without a database are of shared objects; they are cleared in the database `postgres`.
    let databases: BTreeSet<&str> =
        obstacles.iter().map(|found| found.database.as_deref().unwrap_or(PRINCIPALS)).collect();
    let clear = |database: &str| Change::Clear {
        role: name.to_owned(),
        database: database.to_owned(),
        heir: heir.map(str::to_owned),
        joins: joins.clone(),
    };
    let drop = Change::Drop { role: name.to_owned() };
    Ok(databases.into_iter().map(clear).chain([drop]).collect())
}

fn demotion(roles: &Roles, role: &Role) -> Option<Change> {
    let id = role.object_id.filter(|_| role.is_admin && roles.flavour() == Flavour::Flexible)?;
    Some(Change::Bind {
        to: Principal {
            role: role.name.clone(),
            kind: role.kind?,
            identity: PrincipalRef::ObjectId(id),
            is_admin: false,
            is_mfa: role.is_mfa,
        },
        because: "administrator yes → no".to_owned(),
        is_marked: false,
        comment: None,
    })
}
