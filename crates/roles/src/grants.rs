//! What roles may do in one database, and how that differs from a file.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use tokio_postgres::Row;

use super::change::{Change, Defaults, ObjectName, Privilege};
use super::desired::{Desired, DesiredDefault, DesiredGrant, GrantTarget, ObjectNames};
use super::error::RolesError;
use super::fault::Diagnostic;
use super::name;
use super::object::{ObjectKind, TypeName};
use super::owners::Moved;
use super::privilege::Class;
use super::server::DatabaseSession;

mod held;
mod queries;

use queries::{DEFAULTS, HELD, OBJECTS, SCHEMAS};

/// An object, by its class and its oid.
type ObjectKey = (Class, u32);

/// The state of a database, as far as a file is about it.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    database: u32,
    schemas: BTreeSet<String>,
    objects: BTreeMap<ObjectKey, GrantedObject>,
    /// Role, object → the privileges it was granted itself: neither those of PUBLIC nor those of a group.
    held: BTreeMap<(String, ObjectKey), BTreeSet<String>>,
    defaults: BTreeSet<HeldDefault>,
}

#[derive(Debug)]
struct GrantedObject {
    schema: Option<String>,
    name: String,
    /// The arguments of a function for a person to read, and the types alone: by them it can be told from others of its name.
    arguments: Option<String>,
    signature: Option<String>,
    types: Vec<TypeName>,
    is_procedure: bool,
    owner: String,
    /// It belongs to an extension, or is a constructor of a range, which is a superuser's: `"*"` does not include it.
    is_foreign: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HeldDefault {
    role: String,
    owner: String,
    schema: Option<String>,
    class: Class,
    privilege: String,
}

/// A role of the file, and what is known of it on the server.
#[derive(Clone, Copy)]
pub(crate) struct Holder<'a> {
    pub(crate) desired: &'a Desired,
    /// Its name at present, if it is there.
    pub(crate) now: Option<&'a str>,
    /// The owner that a default means where it names none.
    pub(crate) session_user: &'a str,
    pub(crate) version: i32,
}

impl Grants {
    /// Reads what these roles hold, and what is in these schemas.
    pub(crate) async fn read(
        open: &DatabaseSession,
        roles: &[String],
        schemas: &[String],
    ) -> Result<Self, RolesError> {
        let mut grants = Self::default();
        for row in open.query(SCHEMAS, &[]).await? {
            grants.schemas.insert(row.get(0));
        }
        for row in open.query(OBJECTS, &[&schemas, &roles]).await? {
            let (key, object) = object(&row);
            if key.0 == Class::Database {
                grants.database = key.1;
            }
            grants.objects.insert(key, object);
        }
        for row in open.query(HELD, &[&roles]).await? {
            let key = (class(row.get(1)), row.get(2));
            if grants.objects.contains_key(&key) {
                grants.held.entry((row.get(0), key)).or_default().insert(row.get(3));
            }
        }
        for row in open.query(DEFAULTS, &[&roles]).await? {
            let held = HeldDefault {
                role: row.get(0),
                owner: row.get(1),
                schema: row.get(2),
                class: class(row.get(3)),
                privilege: row.get(4),
            };
            // The defaults of the server's own roles are the server's.
            if !name::is_reserved(&held.owner) {
                grants.defaults.insert(held);
            }
        }
        Ok(grants)
    }

    /// Goes on as if these objects had their new owners: with an object, its owner's privileges change hands.
    pub(crate) fn assume(&mut self, moved: &[Moved]) {
        for Moved { kind, oid, owner } in moved {
            let class = match kind {
                ObjectKind::Database => Class::Database,
                ObjectKind::Schema => Class::Schema,
                ObjectKind::Table
                | ObjectKind::View
                | ObjectKind::MaterializedView
                | ObjectKind::ForeignTable => Class::Table,
                ObjectKind::Sequence => Class::Sequence,
                ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Aggregate => Class::Function,
                ObjectKind::Type | ObjectKind::Domain => Class::Type,
                _ => continue,
            };
            if let Some(object) = self.objects.get_mut(&(class, *oid)) {
                object.owner.clone_from(owner);
                self.held.remove(&(owner.clone(), (class, *oid)));
            }
        }
    }

    /// The changes after which a role has exactly the privileges in the file.
    pub(crate) fn difference(
        &self,
        database: &str,
        holder: Holder<'_>,
        faults: &mut Vec<Diagnostic>,
    ) -> Vec<Change> {
        let mut wanted: BTreeMap<ObjectKey, BTreeSet<String>> = BTreeMap::new();
        for want in holder.desired.grants.iter().filter(|want| want.database == database) {
            let class = want.on.class();
            if want.privileges.too_new(holder.version) {
                faults.push(fault(want.line, "MAINTAIN is a privilege from PostgreSQL 17 on"));
            }
            for key in self.meant(want, faults) {
                let privileges = want.privileges.on(class, holder.version);
                wanted.entry(key).or_default().extend(privileges.into_iter().map(str::to_owned));
            }
        }
        let held = |key: &ObjectKey| {
            let now = holder.now?;
            self.held.get(&(now.to_owned(), *key))
        };
        let mut granted = Vec::new();
        for (key, privileges) in &wanted {
            let missing: BTreeSet<String> = match held(key) {
                Some(held) => privileges.difference(held).cloned().collect(),
                None => privileges.clone(),
            };
            granted.push((*key, missing));
        }
        let mut revoked = Vec::new();
        for ((_, key), privileges) in self.held.iter().filter(|((role, _), _)| Some(&**role) == holder.now) {
            let extra = match wanted.get(key) {
                Some(wanted) => privileges.difference(wanted).cloned().collect(),
                None => privileges.clone(),
            };
            revoked.push((*key, extra));
        }
        let role = holder.desired.name.as_str();
        let mut changes: Vec<Change> =
            self.grouped(role, database, granted, holder.called()).into_iter().map(Change::Grant).collect();
        changes
            .extend(self.grouped(role, database, revoked, holder.called()).into_iter().map(Change::Revoke));
        changes.extend(self.default_difference(database, holder, faults));
        changes
    }

    /// One change for all objects of a schema that take the same privileges. What a role owns is its own anyway.
    fn grouped(
        &self,
        role: &str,
        database: &str,
        differences: Vec<(ObjectKey, BTreeSet<String>)>,
        called: &str,
    ) -> Vec<Privilege> {
        type Grouped = (Vec<ObjectName>, BTreeSet<String>);
        let mut groups: BTreeMap<(Class, Option<String>, BTreeSet<String>), Grouped> = BTreeMap::new();
        for (key, privileges) in differences {
            let Some(object) = self.objects.get(&key).filter(|object| object.owner != called) else {
                continue;
            };
            if !privileges.is_empty() {
                let group = groups.entry((key.0, object.schema.clone(), privileges)).or_default();
                group.0.push(object.named());
                group.1.insert(object.owner.clone());
            }
        }
        groups
            .into_iter()
            .map(|((class, schema, privileges), (objects, owners))| Privilege {
                owners,
                role: role.to_owned(),
                database: database.to_owned(),
                class,
                schema,
                objects,
                privileges: privileges.into_iter().collect(),
            })
            .collect()
    }

    /// The objects that a grant means; those that are not there are faults.
    fn meant(&self, want: &DesiredGrant, faults: &mut Vec<Diagnostic>) -> Vec<ObjectKey> {
        let database = &want.database;
        let missing_schema = |schema: &str| {
            fault(
                want.line,
                &format!(
                    "there is no schema {schema} in the database {database}",
                    schema = quote::name(schema),
                    database = quote::name(database)
                ),
            )
        };
        match &want.on {
            GrantTarget::Database => vec![(Class::Database, self.database)],
            GrantTarget::Schema(name) => {
                let schema = self
                    .objects
                    .iter()
                    .find(|((class, _), object)| *class == Class::Schema && object.name == *name);
                if schema.is_none() {
                    faults.push(missing_schema(name));
                }
                schema.into_iter().map(|(key, _)| *key).collect()
            }
            GrantTarget::Objects { schema, .. } if !self.schemas.contains(schema) => {
                faults.push(missing_schema(schema));
                Vec::new()
            }
            GrantTarget::Objects { class, schema, names: ObjectNames::All } => self
                .within(*class, schema)
                .filter(|(_, object)| !object.is_foreign)
                .map(|(key, _)| key)
                .collect(),
            GrantTarget::Objects { class, schema, names: ObjectNames::Some(names) } => {
                let mut keys = Vec::new();
                for name in names {
                    let before = keys.len();
                    keys.extend(
                        self.within(*class, schema)
                            .filter(|(_, object)| {
                                object.name == *name || object.signature.as_ref() == Some(name)
                            })
                            .map(|(key, _)| key),
                    );
                    if keys.len() == before {
                        let message = format!(
                            "there is no {class} {schema}.{name} in the database {database}",
                            schema = quote::name(schema),
                            name = quote::name(name),
                            database = quote::name(database)
                        );
                        faults.push(fault(want.line, &message));
                    }
                }
                keys
            }
        }
    }

    fn within<'a>(
        &'a self,
        class: Class,
        schema: &'a str,
    ) -> impl Iterator<Item = (ObjectKey, &'a GrantedObject)> {
        let fits = move |key: &ObjectKey, object: &GrantedObject| {
            key.0 == class && object.schema.as_deref() == Some(schema)
        };
        self.objects.iter().filter(move |(key, object)| fits(key, object)).map(|(key, object)| (*key, object))
    }

    fn default_difference(
        &self,
        database: &str,
        holder: Holder<'_>,
        faults: &mut Vec<Diagnostic>,
    ) -> Vec<Change> {
        let role = holder.desired.name.as_str();
        let owned =
            |want: &DesiredDefault| want.owner.clone().unwrap_or_else(|| holder.session_user.to_owned());
        let mut wanted = BTreeSet::new();
        for want in holder.desired.defaults.iter().filter(|want| want.database == database) {
            if let Some(schema) = want.schema.as_ref().filter(|schema| !self.schemas.contains(*schema)) {
                let message = format!(
                    "there is no schema {schema} in the database {database}",
                    schema = quote::name(schema),
                    database = quote::name(database)
                );
                faults.push(fault(want.line, &message));
            }
            if want.privileges.too_new(holder.version) {
                faults.push(fault(want.line, "MAINTAIN is a privilege from PostgreSQL 17 on"));
            }
            for privilege in want.privileges.on(want.class, holder.version) {
                wanted.insert(HeldDefault {
                    role: role.to_owned(),
                    owner: owned(want),
                    schema: want.schema.clone(),
                    class: want.class,
                    privilege: privilege.to_owned(),
                });
            }
        }
        let held: BTreeSet<HeldDefault> = self
            .defaults
            .iter()
            .filter(|held| Some(&*held.role) == holder.now)
            .map(|held| HeldDefault { role: role.to_owned(), ..held.clone() })
            .collect();
        let granted = defaults_grouped(database, wanted.difference(&held));
        let revoked = defaults_grouped(database, held.difference(&wanted));
        granted
            .into_iter()
            .map(Change::GrantDefault)
            .chain(revoked.into_iter().map(Change::RevokeDefault))
            .collect()
    }
}

impl Holder<'_> {
    /// Its name at present, or the one that it will have.
    fn called(&self) -> &str {
        self.now.unwrap_or(self.desired.name.as_str())
    }
}

impl GrantedObject {
    fn named(&self) -> ObjectName {
        ObjectName {
            name: self.name.clone(),
            arguments: self.arguments.clone(),
            types: self.types.clone(),
            is_procedure: self.is_procedure,
        }
    }
}

fn defaults_grouped<'a>(database: &str, items: impl Iterator<Item = &'a HeldDefault>) -> Vec<Defaults> {
    let mut groups: BTreeMap<(&str, &str, Option<&str>, Class), Vec<String>> = BTreeMap::new();
    for item in items {
        let key = (&*item.role, &*item.owner, item.schema.as_deref(), item.class);
        groups.entry(key).or_default().push(item.privilege.clone());
    }
    groups
        .into_iter()
        .map(|((role, owner, schema, class), privileges)| Defaults {
            role: role.to_owned(),
            database: database.to_owned(),
            owner: owner.to_owned(),
            schema: schema.map(str::to_owned),
            class,
            privileges,
        })
        .collect()
}

/// The schemas that the grants of a file name in a database.
pub(crate) fn schemas_of(desired: &[Desired], database: &str) -> Vec<String> {
    let grants = desired.iter().flat_map(|role| &role.grants).filter(|want| want.database == database);
    let schemas: BTreeSet<String> = grants
        .filter_map(|want| match &want.on {
            GrantTarget::Database => None,
            GrantTarget::Schema(schema) | GrantTarget::Objects { schema, .. } => Some(schema.clone()),
        })
        .collect();
    schemas.into_iter().collect()
}

fn fault(line: usize, message: &str) -> Diagnostic {
    Diagnostic { line: Some(line), path: None, message: message.to_owned() }
}

/// The letter that the queries below have for a class.
fn class(letter: &str) -> Class {
    match letter {
        "d" => Class::Database,
        "n" => Class::Schema,
        "S" => Class::Sequence,
        "f" => Class::Function,
        "T" => Class::Type,
        _ => Class::Table,
    }
}

fn object(row: &Row) -> (ObjectKey, GrantedObject) {
    let key = (class(row.get(0)), row.get(1));
    let object = GrantedObject {
        schema: row.get(2),
        name: row.get(3),
        arguments: row.get(4),
        is_procedure: row.get(5),
        owner: row.get(6),
        is_foreign: row.get(7),
        signature: row.get::<_, Option<String>>(8).map(|types| format!("{}({types})", row.get::<_, &str>(3))),
        types: types(row.get(9), row.get(10)),
    };
    (key, object)
}

fn types(schemas: Vec<String>, names: Vec<String>) -> Vec<TypeName> {
    schemas.into_iter().zip(names).map(|(schema, name)| TypeName { schema, name }).collect()
}
