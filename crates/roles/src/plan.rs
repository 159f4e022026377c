//! From a file and a server to what has to change.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use uuid::Uuid;

use super::Flavour;
use super::access::SessionRights;
use super::change::Change;
use super::desired::{Desired, PrincipalRef, RolesFile};
use super::error::RolesError;
use super::fault::{Diagnostic, Diagnostics};
use super::grants::{self, Grants, Holder};
use super::loan::{Lender, Loan};
use super::matching::{Matching, matching};
use super::name;
use super::options::{Note, Options};
use super::owners::{self, Owners};
use super::prune::Leftovers;
use super::read::Roles;
use super::server::{DatabaseSession, PRINCIPALS, ServerSessions};
use super::sql::Dialect;
use crate::directory::{Directory, DirectoryError};

/// The changes that make a server match a file.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) notes: Vec<Note>,
    pub(crate) dialect: Dialect,
    /// What the transaction in each database takes and gives back.
    pub(crate) loans: BTreeMap<String, Loan>,
    /// The file, with every client id resolved: what is looked at again after the changes.
    pub(crate) file: Option<RolesFile>,
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
        let places = &file.places;
        let file = RolesFile {
            roles: resolve(&file.roles, roles.flavour(), directory)
                .await
                .map_err(|error| error.placed(places))?,
            places: places.clone(),
        };
        let Matching { mut changes, mut faults, now } = matching(&file.roles, &roles);
        faults.extend(missing_owners(&file.roles, &roles));
        let access = SessionRights::read(&principals, &roles).await?;
        let names = now.iter().zip(&file.roles);
        let renamed = names.filter_map(|(now, role)| Some((now.as_deref()?, role.name.as_str()))).collect();
        let mut loans = BTreeMap::new();
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
            let view = DatabaseView { open, roles: &roles, now: &now };
            let (found, owners) = view.difference(&file.roles, &mut faults).await?;
            let lender = Lender { access: &access, owners: &owners, renamed: &renamed, changes: &found };
            let loan = lender.loan(&mut faults);
            if !loan.is_empty() {
                loans.insert(database.to_owned(), loan);
            }
            changes.extend(found);
        }
        let joins = |(database, loan): (&String, &Loan)| {
            let note = |role: &str| Note::Joins { role: role.to_owned(), database: database.clone() };
            loan.roles().map(note).collect::<Vec<_>>()
        };
        let joined: Vec<Note> = loans.iter().flat_map(joins).collect();
        let left = Leftovers { server, principals: &principals, roles: &roles, file: &file, now: &now };
        let (dropped, mut notes) = left.look(options, &mut faults).await?;
        changes.extend(dropped);
        notes.extend(joined);
        if let Some(directory) = directory.filter(|_| options.orphans) {
            notes.extend(orphans(&roles, &file, directory).await);
        }
        faults.extend(reserved(&changes));
        if !faults.is_empty() {
            faults.dedup();
            return Err(Diagnostics::of(faults)
                .placed(places)
                .hinting("nothing was changed; mend the file, or the server")
                .into());
        }
        Ok(Self { changes, notes, dialect: Dialect::of(&roles), loans, file: Some(file) })
    }

    /// Changes without a file.
    pub(crate) fn of(changes: Vec<Change>, roles: &Roles) -> Self {
        let (notes, loans) = (Vec::new(), BTreeMap::new());
        Self { changes, notes, dialect: Dialect::of(roles), loans, file: None }
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
    /// Reads the owners and the roles' privileges in this database, and returns the differences to the file.
    pub(crate) async fn difference(
        &self,
        desired: &[Desired],
        faults: &mut Vec<Diagnostic>,
    ) -> Result<(Vec<Change>, Owners), RolesError> {
        let names: Vec<String> = self.now.iter().flatten().cloned().collect();
        let owners = Owners::read(self.open, &owners::schemas_of(desired, &self.open.database)).await?;
        let (mut changes, mut moved) = (Vec::new(), Vec::new());
        for (role, now) in desired.iter().zip(self.now) {
            changes.extend(owners.difference(role, now.as_deref(), &mut moved, faults));
        }
        let mut grants =
            Grants::read(self.open, &names, &grants::schemas_of(desired, &self.open.database)).await?;
        grants.assume(&moved);
        for (role, now) in desired.iter().zip(self.now) {
            let holder = Holder {
                desired: role,
                now: now.as_deref(),
                session_user: &self.roles.session_user,
                version: self.roles.version,
            };
            changes.extend(grants.difference(&self.open.database, holder, faults));
        }
        Ok((changes, owners))
    }
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
                    faults.push(Diagnostic { line: Some(role.line), path: None, message });
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
            faults.push(Diagnostic { line: Some(role.line), path: None, message });
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
    desired
        .iter()
        .flat_map(Desired::databases)
        .filter(|(named, _)| *named == database)
        .map(|(_, line)| Diagnostic {
            line: Some(line),
            path: None,
            message: format!("there is no database {database}", database = quote::name(database)),
        })
        .collect()
}

/// Changes of roles that are the server's own. What a file may say has none; no other way may lead to one either.
fn reserved(changes: &[Change]) -> Vec<Diagnostic> {
    let altered: BTreeSet<&str> =
        changes.iter().flat_map(Change::altered).filter(|role| name::is_reserved(role)).collect();
    altered
        .into_iter()
        .map(|role| Diagnostic {
            line: None,
            path: None,
            message: format!("the role {} is the server's own, and stays as it is", quote::name(role)),
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
                path: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectType;
    use crate::change::{Defaults, JoinOptions, OptionsChange, Ownership, Principal, Privilege};
    use crate::membership::MembershipOptions;
    use crate::object::{ObjectKind, OwnedObject};
    use crate::privilege::Class;

    /// A change of every kind, of this role.
    fn every_change(role: &str) -> Vec<Change> {
        let (role, other, options) = (role.to_owned(), "other".to_owned(), MembershipOptions::default());
        let principal = Principal {
            role: role.clone(),
            kind: ObjectType::Service,
            identity: PrincipalRef::Name,
            is_admin: false,
            is_mfa: false,
        };
        let privilege = Privilege {
            role: role.clone(),
            database: "app".to_owned(),
            class: Class::Database,
            schema: None,
            objects: Vec::new(),
            privileges: vec!["CONNECT".to_owned()],
            owners: BTreeSet::new(),
        };
        let defaults = |role: &str, owner: &str| Defaults {
            role: role.to_owned(),
            database: "app".to_owned(),
            owner: owner.to_owned(),
            schema: None,
            class: Class::Table,
            privileges: vec!["SELECT".to_owned()],
        };
        vec![
            Change::Create(principal.clone()),
            Change::CreateGroup { role: role.clone() },
            Change::ForbidLogin { role: role.clone() },
            Change::Rename { from: role.clone(), to: other.clone() },
            Change::Rename { from: other.clone(), to: role.clone() },
            Change::Bind { to: principal, because: String::new(), is_marked: false, comment: None },
            Change::Join {
                role: role.clone(),
                group: other.clone(),
                options: JoinOptions { options, is_noinherit: false },
            },
            Change::AlterMembership {
                role: role.clone(),
                group: other.clone(),
                options: OptionsChange { from: options, to: options },
            },
            Change::Leave { role: role.clone(), group: other.clone() },
            Change::Own(Ownership {
                role: role.clone(),
                database: "app".to_owned(),
                from: other.clone(),
                kind: ObjectKind::Database,
                objects: vec![OwnedObject::outer(ObjectKind::Database, "app")],
                line: 1,
            }),
            Change::Grant(privilege.clone()),
            Change::Revoke(privilege),
            Change::GrantDefault(defaults(&role, &other)),
            Change::GrantDefault(defaults(&other, &role)),
            Change::RevokeDefault(defaults(&role, &other)),
            Change::RevokeDefault(defaults(&other, &role)),
            Change::Clear { role: role.clone(), database: "app".to_owned(), heir: None, joins: Vec::new() },
            Change::Drop { role },
        ]
    }

    #[test]
    fn no_plan_changes_the_servers_own_roles() {
        let actions: BTreeSet<&str> = every_change("x").iter().map(Change::action).collect();
        assert_eq!(actions.len(), 14, "a kind is missing: {actions:?}");
        for role in [
            "azure_pg_admin",
            "azure_superuser",
            "azuresu",
            "azure_ad_admin",
            "azure_ad_user",
            "replication",
            "pg_monitor",
            "pg_database_owner",
        ] {
            for change in every_change(role) {
                let told = reserved(std::slice::from_ref(&change));
                assert_eq!(told.len(), 1, "{change}");
                assert!(told[0].message.contains("is the server's own"), "{told:?}");
            }
        }
        assert_eq!(reserved(&every_change("azure app")), []);
    }
}
