//! What roles may do in one database, and how that differs from a file.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use tokio_postgres::Row;

use super::change::{Change, Defaults, ObjectName, Privilege};
use super::error::RolesError;
use super::fault::Diagnostic;
use super::file::{Desired, DesiredDefault, DesiredGrant, GrantTarget, ObjectNames};
use super::privilege::Class;
use super::server::DatabaseSession;

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
    /// Argument types of a function, so that it can be told from others of its name.
    arguments: Option<String>,
    is_procedure: bool,
    owner: String,
    /// It belongs to an extension: `"*"` does not include it.
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
    /// Reads what these roles hold, and what is in the schemas that the file names.
    pub(crate) async fn read(
        open: &DatabaseSession,
        roles: &[String],
        desired: &[Desired],
    ) -> Result<Self, RolesError> {
        let schemas = named_schemas(desired, &open.database);
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
            grants.defaults.insert(HeldDefault {
                role: row.get(0),
                owner: row.get(1),
                schema: row.get(2),
                class: class(row.get(3)),
                privilege: row.get(4),
            });
        }
        Ok(grants)
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
            self.grouped(role, database, granted, holder.now).into_iter().map(Change::Grant).collect();
        changes.extend(self.grouped(role, database, revoked, holder.now).into_iter().map(Change::Revoke));
        changes.extend(self.default_difference(database, holder, faults));
        changes
    }

    /// One change for all objects of a schema that take the same privileges. What a role owns is its own anyway.
    fn grouped(
        &self,
        role: &str,
        database: &str,
        differences: Vec<(ObjectKey, BTreeSet<String>)>,
        now: Option<&str>,
    ) -> Vec<Privilege> {
        let mut groups: BTreeMap<(Class, Option<String>, BTreeSet<String>), Vec<ObjectName>> =
            BTreeMap::new();
        for (key, privileges) in differences {
            let Some(object) = self.objects.get(&key).filter(|object| Some(&*object.owner) != now) else {
                continue;
            };
            if !privileges.is_empty() {
                groups.entry((key.0, object.schema.clone(), privileges)).or_default().push(object.named());
            }
        }
        groups
            .into_iter()
            .map(|((class, schema, privileges), objects)| Privilege {
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
                            .filter(|(_, object)| object.name == *name)
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

impl GrantedObject {
    fn named(&self) -> ObjectName {
        ObjectName {
            name: self.name.clone(),
            arguments: self.arguments.clone(),
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

fn named_schemas(desired: &[Desired], database: &str) -> Vec<String> {
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
    Diagnostic { line: Some(line), message: message.to_owned() }
}

/// The letter that the queries below have for a class.
fn class(letter: &str) -> Class {
    match letter {
        "d" => Class::Database,
        "n" => Class::Schema,
        "S" => Class::Sequence,
        "f" => Class::Function,
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
    };
    (key, object)
}

const SCHEMAS: &str = "SELECT nspname::text FROM pg_catalog.pg_namespace";

/// The database itself; the schemas that the file names and what is in them; and whatever the roles hold something on,
/// but for the system's own. $1: schemas, $2: roles.
const OBJECTS: &str = "
WITH held AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname::text = ANY($2))
SELECT 'd'::text, d.oid, NULL::text, d.datname::text, NULL::text, false,
       pg_catalog.pg_get_userbyid(d.datdba)::text, false
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
UNION ALL
SELECT 'n', n.oid, NULL, n.nspname::text, NULL, false, pg_catalog.pg_get_userbyid(n.nspowner)::text, false
FROM pg_catalog.pg_namespace n
WHERE n.nspname::text = ANY($1)
   OR n.nspname !~ '^(pg_|information_schema$)'
      AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee IN (TABLE held))
UNION ALL
SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END, c.oid, n.nspname::text, c.relname::text, NULL, false,
       pg_catalog.pg_get_userbyid(c.relowner)::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend e
               WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND (n.nspname::text = ANY($1)
       OR n.nspname !~ '^(pg_|information_schema$)'
          AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee IN (TABLE held)))
UNION ALL
SELECT 'f', p.oid, n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid),
       p.prokind = 'p', pg_catalog.pg_get_userbyid(p.proowner)::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend e
               WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname::text = ANY($1)
   OR n.nspname !~ '^(pg_|information_schema$)'
      AND EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee IN (TABLE held))";

/// What the roles ($1) were granted themselves. An owner's own privileges are in these lists too, and are left out.
const HELD: &str = "
SELECT r.rolname::text, x.class, x.oid, a.privilege_type::text
FROM (
    SELECT 'd'::text AS class, oid, datdba AS owner, datacl AS acl
    FROM pg_catalog.pg_database WHERE datname = current_database()
    UNION ALL SELECT 'n', oid, nspowner, nspacl FROM pg_catalog.pg_namespace
    UNION ALL SELECT CASE relkind WHEN 'S' THEN 'S' ELSE 'r' END, oid, relowner, relacl
    FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'f', oid, proowner, proacl FROM pg_catalog.pg_proc
) x
CROSS JOIN LATERAL aclexplode(x.acl) a
JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE r.rolname::text = ANY($1) AND a.grantee <> x.owner";

const DEFAULTS: &str = "
SELECT r.rolname::text, pg_catalog.pg_get_userbyid(d.defaclrole)::text, n.nspname::text,
       d.defaclobjtype::text, a.privilege_type::text
FROM pg_catalog.pg_default_acl d
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL aclexplode(d.defaclacl) a
JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE r.rolname::text = ANY($1) AND a.grantee <> d.defaclrole AND d.defaclobjtype IN ('r', 'S', 'f')";
