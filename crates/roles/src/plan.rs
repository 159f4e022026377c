//! From a file and a server to what has to change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pgentra_connect::quote;
use uuid::Uuid;

use super::Flavour;
use super::change::{Change, Principal, shown};
use super::dependency::Dependency;
use super::error::RolesError;
use super::fault::{Diagnostic, Diagnostics};
use super::file::{Desired, PrincipalRef, RolesFile};
use super::grants::{Grants, Holder};
use super::matching::{Matching, matching};
use super::obstacles;
use super::read::{Role, Roles};
use super::server::{DatabaseSession, PRINCIPALS, ServerSessions};
use super::sql::Dialect;
use crate::directory::{Directory, DirectoryError};

/// What a plan changes and reports beyond the roles of the file. Default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which mapped roles that are not in the file are dropped. Default: none.
    pub prune: Prune,
    /// Whether the directory is asked which principals are gone. Default: no.
    pub orphans: bool,
}

/// Which mapped roles that are not in the file are dropped. The signed-in role is never dropped. A role that owns an
/// object makes the whole plan fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prune {
    /// None: they are listed in the notes of the plan.
    #[default]
    Nothing,
    /// Every mapped role that is not in the file, except administrators.
    Roles,
    /// Every mapped role that is not in the file, administrators too.
    Administrators,
}

/// The changes that make a server match a file.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) notes: Vec<Note>,
    pub(crate) dialect: Dialect,
    /// The file, with every client id resolved: what is looked at again after the changes.
    pub(crate) file: Option<RolesFile>,
}

/// A finding that does not cause a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A mapped role that is not in the file.
    NotInFile(String),
    /// A role whose principal the tenant does not have any more.
    Orphan(String),
    /// The tenant did not say which principals it has.
    NoDirectory(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInFile(role) => write!(f, "role {} is not in the file", shown(role)),
            Self::Orphan(role) => write!(f, "role {}: its principal is no longer in the tenant", shown(role)),
            Self::NoDirectory(why) => write!(f, "roles whose principal is gone were not looked for: {why}"),
        }
    }
}

impl Plan {
    /// Makes a plan, inside read-only transactions. A `directory` resolves client ids, and tells orphans where that is
    /// asked for.
    ///
    /// # Errors
    /// Everything in the file that does not fit the server, at once; or why it could not be read.
    pub async fn make(
        server: &ServerSessions,
        file: &RolesFile,
        options: Options,
        directory: Option<&dyn Directory>,
    ) -> Result<Self, RolesError> {
        // One snapshot for each database: roles that change while the plan is made do not mix into it.
        let principals = server.open(PRINCIPALS).await?;
        principals.begin_reading().await?;
        let roles = Roles::read(principals.client()).await?;
        let file = RolesFile { roles: resolve(&file.roles, roles.flavour(), directory).await? };
        let Matching { mut changes, mut faults, now } = matching(&file.roles, &roles);
        faults.extend(missing_owners(&file.roles, &roles));
        // Faults are collected to the end, so that one run shows every line that has to be changed.
        for database in file.databases() {
            if !roles.databases.contains(database) {
                faults.extend(missing_database(&file.roles, database));
                continue;
            }
            let other = match database {
                PRINCIPALS => None,
                _ => Some(begin_reading(server, database).await?),
            };
            let open = other.as_ref().unwrap_or(&principals);
            let held = DatabaseView { open, roles: &roles, now: &now };
            changes.extend(held.difference(&file.roles, &mut faults).await?);
        }
        let left: Vec<_> =
            roles.entra().iter().filter(|role| !now.iter().flatten().any(|now| *now == role.name)).collect();
        let mut notes = Vec::new();
        for role in left {
            let is_pruned = match options.prune {
                Prune::Nothing => false,
                Prune::Roles => !role.is_admin,
                Prune::Administrators => true,
            };
            // PostgreSQL refuses to drop the session's own role, and with it the whole transaction.
            if !is_pruned || role.name == roles.session_user {
                notes.push(Note::NotInFile(role.name.clone()));
                continue;
            }
            let found = obstacles::obstacles(server, &principals, role.oid).await?;
            // `DROP OWNED` would delete the objects with their data. A plan drops privileges, never data.
            if let Some(owned) = found.iter().find(|found| found.is_owned()) {
                let message = format!("the role {} is not in the file and {owned}", quote::name(&role.name));
                faults.push(Diagnostic { line: None, message });
                continue;
            }
            changes.extend(dropping(&principals, &roles, role, None, &found).await?);
        }
        if let Some(directory) = directory.filter(|_| options.orphans) {
            notes.extend(orphans(&roles, &file, directory).await);
        }
        if !faults.is_empty() {
            faults.dedup();
            return Err(Diagnostics::of(faults)
                .hinting("nothing was changed; mend the file, or the server")
                .into());
        }
        let dialect = Dialect { flavour: roles.flavour(), can_update: roles.can_update };
        Ok(Self { changes, notes, dialect, file: Some(file) })
    }

    /// The changes, in order. Empty: the server matches the file.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Findings that do not cause a change.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Which product the server is.
    pub fn flavour(&self) -> Flavour {
        self.dialect.flavour
    }

    /// The statements of one of the changes, as they are run.
    pub fn statements(&self, change: &Change) -> Vec<String> {
        self.dialect.statements(change)
    }
}

/// A session in a database, and the roles that are examined in it.
pub(crate) struct DatabaseView<'a> {
    pub(crate) open: &'a DatabaseSession,
    pub(crate) roles: &'a Roles,
    /// For each role of the file the name that it has.
    pub(crate) now: &'a [Option<String>],
}

impl DatabaseView<'_> {
    /// Reads the roles' privileges in this database, and returns the differences to the file.
    pub(crate) async fn difference(
        &self,
        desired: &[Desired],
        faults: &mut Vec<Diagnostic>,
    ) -> Result<Vec<Change>, RolesError> {
        let names: Vec<String> = self.now.iter().flatten().cloned().collect();
        let grants = Grants::read(self.open, &names, desired).await?;
        let mut changes = Vec::new();
        for (role, now) in desired.iter().zip(self.now) {
            let holder = Holder {
                desired: role,
                now: now.as_deref(),
                session_user: &self.roles.session_user,
                version: self.roles.version,
            };
            changes.extend(grants.difference(&self.open.database, holder, faults));
        }
        Ok(changes)
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
    let mut joins = Vec::new();
    for group in [Some(&*role.name), heir].into_iter().flatten() {
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
        role: role.name.clone(),
        database: database.to_owned(),
        heir: heir.map(str::to_owned),
        joins: joins.clone(),
    };
    let demotion = demotion(roles, role).into_iter();
    let drop = Change::Drop { role: role.name.clone() };
    Ok(demotion.chain(databases.into_iter().map(clear)).chain([drop]).collect())
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

async fn begin_reading(server: &ServerSessions, database: &str) -> Result<DatabaseSession, RolesError> {
    let open = server.open(database).await?;
    open.begin_reading().await?;
    Ok(open)
}

/// On Flexible Server a role is mapped to an object id, so client ids are looked up.
pub(crate) async fn resolve(
    desired: &[Desired],
    flavour: Flavour,
    directory: Option<&dyn Directory>,
) -> Result<Vec<Desired>, RolesError> {
    let mut resolved = desired.to_vec();
    let mut faults = Vec::new();
    let mut found: BTreeMap<Uuid, &Desired> = BTreeMap::new();
    for (role, original) in resolved.iter_mut().zip(desired) {
        if let (Flavour::Flexible, PrincipalRef::ClientId(client_id)) = (flavour, role.identity) {
            // A role for the client id would be created without an error, and no token of the principal would match it.
            match object_id(client_id, directory).await? {
                Some(id) => role.identity = PrincipalRef::ObjectId(id),
                None => {
                    let message = format!("the tenant has no service principal with client id {client_id}");
                    faults.push(Diagnostic { line: Some(role.line), message });
                }
            }
        }
        if let PrincipalRef::ObjectId(id) = role.identity
            && let Some(first) = found.insert(id, original)
        {
            let message = format!(
                "{} and {} are for one principal, {id}",
                quote::name(role.name.as_str()),
                quote::name(first.name.as_str())
            );
            faults.push(Diagnostic { line: Some(role.line), message });
        }
    }
    if faults.is_empty() { Ok(resolved) } else { Err(Diagnostics::of(faults).into()) }
}

/// The object id of the service principal with this client id.
pub(crate) async fn object_id(
    client_id: Uuid,
    directory: Option<&dyn Directory>,
) -> Result<Option<Uuid>, RolesError> {
    let failed = |source| RolesError::Directory { client_id, source };
    let directory = directory.ok_or_else(|| failed(DirectoryError::new("Microsoft Graph was not asked")))?;
    let principal = directory.service_principal(client_id).await.map_err(failed)?;
    Ok(principal.map(|principal| principal.object_id))
}

fn missing_database(desired: &[Desired], database: &str) -> Vec<Diagnostic> {
    let grants = desired.iter().flat_map(|role| role.grants.iter().map(|want| (&*want.database, want.line)));
    let defaults =
        desired.iter().flat_map(|role| role.defaults.iter().map(|want| (&*want.database, want.line)));
    grants
        .chain(defaults)
        .filter(|(named, _)| *named == database)
        .map(|(_, line)| Diagnostic {
            line: Some(line),
            message: format!("there is no database {database}", database = quote::name(database)),
        })
        .collect()
}

fn missing_owners(desired: &[Desired], roles: &Roles) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for want in desired.iter().flat_map(|role| &role.defaults) {
        if let Some(owner) = &want.owner
            && !roles.all.contains_key(owner)
            && !desired.iter().any(|role| role.name.as_str() == owner)
        {
            faults.push(Diagnostic {
                line: Some(want.line),
                message: format!("there is no role {owner}", owner = quote::name(owner)),
            });
        }
    }
    faults
}

/// Roles whose principal is gone.
async fn orphans(roles: &Roles, file: &RolesFile, directory: &dyn Directory) -> Vec<Note> {
    let mut ids: BTreeMap<Uuid, BTreeSet<&str>> = BTreeMap::new();
    for role in roles.entra() {
        if let Some(id) = role.object_id {
            ids.entry(id).or_default().insert(&role.name);
        }
    }
    for role in &file.roles {
        if let PrincipalRef::ObjectId(id) = role.identity {
            ids.entry(id).or_default().insert(role.name.as_str());
        }
    }
    let asked: Vec<Uuid> = ids.keys().copied().collect();
    match directory.existing(&asked).await {
        Ok(existing) => ids
            .iter()
            .filter(|(id, _)| !existing.contains(id))
            .flat_map(|(_, roles)| roles.iter().map(|role| Note::Orphan((*role).to_owned())))
            .collect(),
        Err(error) => vec![Note::NoDirectory(error.to_string())],
    }
}
