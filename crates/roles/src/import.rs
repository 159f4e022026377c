//! A file of roles from what a server has.

use std::collections::BTreeMap;

use pgentra_connect::quote;

use super::Flavour;
use super::desired::{Desired, DesiredOwnership, OwnTarget, PrincipalRef, RolesFile};
use super::error::RolesError;
use super::grants::Grants;
use super::name::{self, RoleName};
use super::owners::Owners;
use super::read::{Role, Roles};
use super::server::{DatabaseSession, PRINCIPALS, ServerSessions};

/// What a server has, as a file of roles, and what of it no file can say.
#[derive(Debug, Clone)]
pub struct Import {
    file: RolesFile,
    left_out: Vec<String>,
}

impl Import {
    /// Reads the roles that are mapped to Entra, the group roles, and what they own and may do in every database that the
    /// signed-in role can connect to. A plan for the file is empty then.
    ///
    /// # Errors
    /// The roles cannot be read. A database that cannot be read is left out, and named.
    pub async fn read(server: &ServerSessions) -> Result<Self, RolesError> {
        let principals = server.open(PRINCIPALS).await?;
        principals.begin_reading().await?;
        let roles = Roles::read(principals.client()).await?;
        let mut left_out = Vec::new();
        let mut file = RolesFile { roles: desired(&roles, &mut left_out), ..RolesFile::default() };
        for database in connectable(&principals).await? {
            let part = DatabasePart { server, principals: &principals, database: &database };
            if let Err(error) = part.add(&mut file.roles, &mut left_out).await {
                left_out.push(format!("the database {}: {error}", quote::name(&database)));
            }
        }
        Ok(Self { file, left_out })
    }

    /// What was read.
    pub fn file(&self) -> &RolesFile {
        &self.file
    }

    /// What a file of roles cannot say, one line each.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The file as TOML. What is left out is named in comments.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for what in &self.left_out {
            text.push_str(&format!("# left out: {}\n", quote::line(what)));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text + &self.file.to_toml()
    }
}

/// The roles, without what they own and may do.
fn desired(roles: &Roles, left_out: &mut Vec<String>) -> Vec<Desired> {
    let mut found = Vec::new();
    let groups = roles.all.keys().filter(|name| roles.is_group(name)).map(|name| (&**name, None));
    for (name, mapped) in roles.entra().iter().map(|role| (&*role.name, Some(role))).chain(groups) {
        match name.parse::<RoleName>() {
            Ok(name) => found.push(one(name, mapped, roles, left_out)),
            Err(error) => left_out.push(format!("the role {}: {error}", quote::name(name))),
        }
    }
    found
}

fn one(name: RoleName, mapped: Option<&Role>, roles: &Roles, left_out: &mut Vec<String>) -> Desired {
    let is_flexible = roles.flavour() == Flavour::Flexible;
    let id = mapped.and_then(|role| role.object_id).filter(|_| is_flexible);
    let mut member_of = BTreeMap::new();
    for (group, options) in roles.all.get(name.as_str()).into_iter().flat_map(|any| &any.member_of) {
        if name::is_reserved(group) && !group.starts_with("pg_") {
            continue;
        }
        match name::check(group) {
            Ok(()) => drop(member_of.insert(group.clone(), *options)),
            Err(error) => left_out.push(format!(
                "the membership of {} in {}: {error}",
                quote::name(name.as_str()),
                quote::name(group)
            )),
        }
    }
    Desired {
        name,
        can_login: mapped.is_some(),
        kind: mapped.and_then(|role| role.kind).unwrap_or_default(),
        identity: id.map_or(PrincipalRef::Name, PrincipalRef::ObjectId),
        is_admin: is_flexible && mapped.is_some_and(|role| role.is_admin),
        is_mfa: is_flexible && mapped.is_some_and(|role| role.is_mfa),
        member_of,
        owns: Vec::new(),
        grants: Vec::new(),
        defaults: Vec::new(),
        line: 0,
    }
}

/// Databases that take sessions of the signed-in role.
async fn connectable(principals: &DatabaseSession) -> Result<Vec<String>, RolesError> {
    let sql = "SELECT datname::text FROM pg_catalog.pg_database
               WHERE datallowconn AND NOT datistemplate AND has_database_privilege(oid, 'CONNECT') ORDER BY 1";
    Ok(principals.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// What one database adds to the roles.
struct DatabasePart<'a> {
    server: &'a ServerSessions,
    principals: &'a DatabaseSession,
    database: &'a str,
}

impl DatabasePart<'_> {
    async fn add(&self, roles: &mut [Desired], left_out: &mut Vec<String>) -> Result<(), RolesError> {
        let other = match self.database {
            PRINCIPALS => None,
            _ => {
                let open = self.server.open(self.database).await?;
                open.begin_reading().await?;
                Some(open)
            }
        };
        let open = other.as_ref().unwrap_or(self.principals);
        let schemas: Vec<String> =
            Owners::read(open, &[]).await?.schemas().map(|(name, _)| name.to_owned()).collect();
        let names: Vec<String> = roles.iter().map(|role| role.name.to_string()).collect();
        let owners = Owners::read(open, &schemas).await?;
        let grants = Grants::read(open, &names, &schemas).await?;
        for role in roles {
            role.owns.extend(self.owned(&owners, role.name.as_str()));
            role.grants.extend(grants.of_role(self.database, role.name.as_str(), left_out));
            role.defaults.extend(grants.defaults_of_role(self.database, role.name.as_str()));
        }
        Ok(())
    }

    fn owned(&self, owners: &Owners, role: &str) -> Vec<DesiredOwnership> {
        let own = |on| DesiredOwnership { database: self.database.to_owned(), on, line: 0 };
        let mut owned = Vec::new();
        if owners.database_owner == role {
            owned.push(own(OwnTarget::Database));
        }
        for (schema, owner) in owners.schemas() {
            if owner == role {
                owned.push(own(OwnTarget::Schema(schema.to_owned())));
            }
            if owners.sole_owner(schema) == Some(role) {
                owned.push(own(OwnTarget::Objects(schema.to_owned())));
            }
        }
        owned
    }
}
