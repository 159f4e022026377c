//! A schema with its usual roles: the owner, who may write, who may read.
//!
//! What it stands for is written out in `docs/roles.md`.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_toml_lines::At;

use super::name;
use crate::ObjectType;
use crate::desired::{
    Desired, DesiredDefault, DesiredGrant, DesiredOwnership, GrantTarget, ObjectNames, OwnTarget,
    PrincipalRef,
};
use crate::document::{Keys, Reader};
use crate::name::RoleName;
use crate::privilege::{Class, Privileges};

const SCHEMA_KEYS: &str = "database, name, owner, read_write, read_only, creators";

const READ_ONLY: [(Class, &[&str]); 3] =
    [(Class::Table, &["SELECT"]), (Class::Sequence, &["SELECT"]), (Class::Type, &["USAGE"])];
const READ_WRITE: [(Class, &[&str]); 4] = [
    (Class::Table, &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    (Class::Sequence, &["SELECT", "UPDATE", "USAGE"]),
    (Class::Function, &["EXECUTE"]),
    (Class::Type, &["USAGE"]),
];

/// A schema and its roles.
pub(crate) struct Template {
    database: String,
    schema: String,
    owner: Option<RoleName>,
    read_write: Option<RoleName>,
    read_only: Option<RoleName>,
    /// Further roles that create objects in the schema.
    creators: Vec<String>,
    line: usize,
}

pub(crate) fn read(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<Template> {
    let line = keys.line;
    let database = name::identifier(&mut keys, "database", reader).unwrap_or_else(|| database.to_owned());
    let schema = name::identifier(&mut keys, "name", reader);
    let mut role = |keys: &mut Keys, key: &str| -> Option<RoleName> {
        let name: At<String> = keys.text(key, reader)?;
        name::role(name, reader)
    };
    let owner = role(&mut keys, "owner");
    let read_write = role(&mut keys, "read_write");
    let read_only = role(&mut keys, "read_only");
    let creators = name::owners(&mut keys, "creators", reader);
    keys.end("a schema", SCHEMA_KEYS, reader);
    let names: BTreeSet<&RoleName> = [&owner, &read_write, &read_only].into_iter().flatten().collect();
    let count = [&owner, &read_write, &read_only].into_iter().flatten().count();
    if count == 0 {
        reader.fault(line, "a schema has an owner, a read_write or a read_only role");
    }
    if names.len() != count {
        reader.fault(line, "owner, read_write and read_only are three roles");
    }
    let Some(schema) = schema else {
        reader.fault(line, "a schema needs a name");
        return None;
    };
    if schema.starts_with("pg_") || schema == "information_schema" {
        reader.fault(line, format!("the schema {schema:?} belongs to the server itself"));
        return None;
    }
    Some(Template { database, schema, owner, read_write, read_only, creators, line })
}

impl Template {
    /// Adds what it stands for to the roles that it names. A role that the file does not have is added as a group role.
    pub(crate) fn expand(&self, roles: &mut Vec<Desired>) {
        if let Some(owner) = &self.owner {
            let owner = named(roles, owner, self.line);
            for on in [OwnTarget::Schema(self.schema.clone()), OwnTarget::Objects(self.schema.clone())] {
                owner.owns.push(DesiredOwnership { database: self.database.clone(), on, line: self.line });
            }
        }
        if let Some(role) = &self.read_write {
            self.admit(named(roles, role, self.line), &READ_WRITE);
        }
        if let Some(role) = &self.read_only {
            self.admit(named(roles, role, self.line), &READ_ONLY);
        }
        for creator in &self.creators {
            // A creator that the file does not have keeps what it has.
            if let Some(creator) = roles.iter_mut().find(|role| role.name.as_str() == creator) {
                creator
                    .grants
                    .push(self.grant(GrantTarget::Schema(self.schema.clone()), &["USAGE", "CREATE"]));
            }
        }
    }

    /// The privileges on what is there, and on what the owner and the creators will make.
    fn admit(&self, role: &mut Desired, privileges: &[(Class, &[&str])]) {
        role.grants.push(self.grant(GrantTarget::Database, &["CONNECT"]));
        role.grants.push(self.grant(GrantTarget::Schema(self.schema.clone()), &["USAGE"]));
        for (class, words) in privileges {
            let names = ObjectNames::All;
            let on = GrantTarget::Objects { class: *class, schema: self.schema.clone(), names };
            role.grants.push(self.grant(on, words));
        }
        let owners = self.owner.iter().map(|owner| owner.to_string()).chain(self.creators.iter().cloned());
        for owner in owners.collect::<BTreeSet<_>>() {
            for (class, words) in privileges {
                role.defaults.push(DesiredDefault {
                    database: self.database.clone(),
                    owner: Some(owner.clone()),
                    schema: Some(self.schema.clone()),
                    class: *class,
                    privileges: privileges_of(*class, words),
                    line: self.line,
                });
            }
        }
    }

    fn grant(&self, on: GrantTarget, words: &[&str]) -> DesiredGrant {
        let privileges = privileges_of(on.class(), words);
        DesiredGrant { database: self.database.clone(), on, privileges, line: self.line }
    }
}

fn privileges_of(class: Class, words: &[&str]) -> Privileges {
    let known = class.privileges().iter().copied();
    Privileges::Some(known.filter(|privilege| words.contains(privilege)).collect())
}

/// The role of the file with this name, which is added where there is none.
fn named<'a>(roles: &'a mut Vec<Desired>, name: &RoleName, line: usize) -> &'a mut Desired {
    let position = roles.iter().position(|role| role.name == *name).unwrap_or_else(|| {
        roles.push(Desired {
            name: name.clone(),
            can_login: false,
            kind: ObjectType::default(),
            identity: PrincipalRef::Name,
            is_admin: false,
            is_mfa: false,
            member_of: BTreeMap::new(),
            owns: Vec::new(),
            grants: Vec::new(),
            defaults: Vec::new(),
            line,
        });
        roles.len() - 1
    });
    &mut roles[position]
}
