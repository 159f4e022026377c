//! Who owns what in one database, and how that differs from a file.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use tokio_postgres::Row;

use super::access::DATABASE_OWNER;
use super::change::{Change, Ownership};
use super::desired::{Desired, DesiredOwnership, OwnTarget};
use super::error::RolesError;
use super::fault::Diagnostic;
use super::object::{ObjectKind, OwnedObject, TypeName};
use super::server::DatabaseSession;

/// The owners in a database, as far as a file is about them.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    database: String,
    database_oid: u32,
    /// The owner of the database.
    pub(crate) database_owner: String,
    /// Schemas by name: their oids and owners.
    schemas: BTreeMap<String, (u32, String)>,
    objects: Vec<Owned>,
    /// Role and schema, where the role may create objects.
    creators: BTreeSet<(String, String)>,
    /// Role and schema, where the role may name objects.
    users: BTreeSet<(String, String)>,
    /// Schemas in which the session's user may name objects.
    usable: BTreeSet<String>,
    /// Whether the session's user may create schemas in the database.
    pub(crate) creates_schemas: bool,
}

#[derive(Debug)]
struct Owned {
    object: OwnedObject,
    oid: u32,
    owner: String,
    /// A sequence of a table's column: its owner is always the table's.
    follows: bool,
}

/// An object that gets another owner by a plan: its kind, its oid, the new owner.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) kind: ObjectKind,
    pub(crate) oid: u32,
    pub(crate) owner: String,
}

impl Owners {
    /// Reads them; `schemas` are those whose objects are meant.
    pub(crate) async fn read(open: &DatabaseSession, schemas: &[String]) -> Result<Self, RolesError> {
        let mut owners = Self { database: open.database.clone(), ..Self::default() };
        for row in open.query(DATABASE, &[]).await? {
            owners.database_oid = row.get(0);
            owners.database_owner = row.get(1);
            owners.creates_schemas = row.get(2);
        }
        for row in open.query(SCHEMAS, &[]).await? {
            let name: String = row.get(0);
            if row.get(3) {
                owners.usable.insert(name.clone());
            }
            owners.schemas.insert(name, (row.get(1), row.get(2)));
        }
        if !schemas.is_empty() {
            for row in open.query(OBJECTS, &[&schemas]).await? {
                owners.objects.extend(owned(&row));
            }
            for row in open.query(SCHEMA_RIGHTS, &[&schemas]).await? {
                let key: (String, String) = (row.get(0), row.get(1));
                if row.get(2) {
                    owners.creators.insert(key.clone());
                }
                if row.get(3) {
                    owners.users.insert(key);
                }
            }
        }
        Ok(owners)
    }

    /// The changes after which a role owns what the file says. `now` is the name that it has at present.
    pub(crate) fn difference(
        &self,
        role: &Desired,
        now: Option<&str>,
        moved: &mut Vec<Moved>,
        faults: &mut Vec<Diagnostic>,
    ) -> Vec<Change> {
        let name = now.unwrap_or(role.name.as_str());
        let mut changes = Vec::new();
        for want in role.owns.iter().filter(|want| want.database == self.database) {
            let change = |kind: ObjectKind, from: &str, objects: Vec<OwnedObject>| {
                Change::Own(Ownership {
                    role: role.name.to_string(),
                    database: self.database.clone(),
                    from: from.to_owned(),
                    kind,
                    objects,
                    line: want.line,
                })
            };
            let mut outer = |kind: ObjectKind, object: &str, oid: u32, owner: &str| {
                if owner != name {
                    changes.push(change(kind, owner, vec![OwnedObject::outer(kind, object)]));
                    moved.push(Moved { kind, oid, owner: name.to_owned() });
                }
            };
            match &want.on {
                OwnTarget::Database => {
                    outer(ObjectKind::Database, &self.database, self.database_oid, &self.database_owner);
                }
                OwnTarget::Schema(schema) => match self.schemas.get(schema) {
                    Some((oid, owner)) => outer(ObjectKind::Schema, schema, *oid, owner),
                    None => faults.push(self.missing(want, schema)),
                },
                OwnTarget::Objects(schema) if !self.schemas.contains_key(schema) => {
                    faults.push(self.missing(want, schema));
                }
                OwnTarget::Objects(schema) => {
                    let mut groups: BTreeMap<(ObjectKind, &str), Vec<OwnedObject>> = BTreeMap::new();
                    for owned in self.others(schema, name) {
                        let kind = owned.object.kind;
                        moved.push(Moved { kind, oid: owned.oid, owner: name.to_owned() });
                        if !owned.follows {
                            groups.entry((kind, &owned.owner)).or_default().push(owned.object.clone());
                        }
                    }
                    changes.extend(
                        groups.into_iter().map(|((kind, from), objects)| change(kind, from, objects)),
                    );
                }
            }
        }
        changes
    }

    /// Who owns a schema: where that is the owner of the database, by its own name.
    pub(crate) fn schema_owner(&self, schema: &str) -> Option<&str> {
        let (_, owner) = self.schemas.get(schema)?;
        Some(if owner == DATABASE_OWNER { &self.database_owner } else { owner })
    }

    /// The schemas that are none of the server's own, with their owners.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = |name: &str| name.starts_with("pg_") || name == "information_schema";
        let schemas = self.schemas.iter().filter(move |(name, _)| !own(name));
        schemas.map(|(name, (_, owner))| (&**name, &**owner))
    }

    /// The role that owns every object of a schema, if one does.
    pub(crate) fn sole_owner(&self, schema: &str) -> Option<&str> {
        let is_in = |owned: &&Owned| owned.object.schema.as_deref() == Some(schema);
        let mut owners = self.objects.iter().filter(is_in).map(|owned| &*owned.owner);
        let first = owners.next()?;
        owners.all(|owner| owner == first).then_some(first)
    }

    /// Whether a role may create objects in a schema.
    pub(crate) fn may_create(&self, role: &str, schema: &str) -> bool {
        self.creators.contains(&(role.to_owned(), schema.to_owned()))
    }

    /// Whether a role may name the objects of a schema, which takes the privilege USAGE.
    pub(crate) fn role_may_use(&self, role: &str, schema: &str) -> bool {
        self.users.contains(&(role.to_owned(), schema.to_owned()))
    }

    /// The same for the session's user.
    pub(crate) fn may_use(&self, schema: &str) -> bool {
        self.usable.contains(schema)
    }

    /// What the schema has of other owners, in the order of the kinds and names.
    fn others<'a>(&'a self, schema: &'a str, owner: &'a str) -> impl Iterator<Item = &'a Owned> {
        self.objects
            .iter()
            .filter(move |owned| owned.object.schema.as_deref() == Some(schema) && owned.owner != owner)
    }

    fn missing(&self, want: &DesiredOwnership, schema: &str) -> Diagnostic {
        let message = format!(
            "there is no schema {} in the database {}",
            quote::name(schema),
            quote::name(&self.database)
        );
        Diagnostic { line: Some(want.line), path: None, message }
    }
}

/// The schemas whose objects a file is about in a database.
pub(crate) fn schemas_of(desired: &[Desired], database: &str) -> Vec<String> {
    let wants = desired.iter().flat_map(|role| &role.owns).filter(|want| want.database == database);
    let schemas: BTreeSet<&str> = wants
        .filter_map(|want| match &want.on {
            OwnTarget::Objects(schema) => Some(&**schema),
            OwnTarget::Database | OwnTarget::Schema(_) => None,
        })
        .collect();
    schemas.into_iter().map(str::to_owned).collect()
}

fn owned(row: &Row) -> Option<Owned> {
    let kind = ObjectKind::of(row.get(0))?;
    let schemas: Vec<String> = row.get(6);
    let names: Vec<String> = row.get(7);
    let types = schemas.into_iter().zip(names).map(|(schema, name)| TypeName { schema, name }).collect();
    let shown: Vec<String> = row.get(8);
    let object = OwnedObject {
        kind,
        schema: Some(row.get(2)),
        name: row.get(3),
        types,
        arguments: shown.join(", "),
        method: row.get(5),
    };
    Some(Owned { object, oid: row.get(1), owner: row.get(4), follows: row.get(9) })
}

const DATABASE: &str = "
SELECT oid, pg_catalog.pg_get_userbyid(datdba)::text, has_database_privilege(oid, 'CREATE')
FROM pg_catalog.pg_database WHERE datname = current_database()";

const SCHEMAS: &str =
    "SELECT nspname::text, oid, pg_catalog.pg_get_userbyid(nspowner)::text, has_schema_privilege(oid, 'USAGE')
    FROM pg_catalog.pg_namespace";

/// Who may create objects in the schemas $1, and who may name them.
const SCHEMA_RIGHTS: &str = "
SELECT r.rolname::text, n.nspname::text, has_schema_privilege(r.oid, n.oid, 'CREATE'),
       has_schema_privilege(r.oid, n.oid, 'USAGE')
FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n
WHERE n.nspname::text = ANY($1) AND has_schema_privilege(r.oid, n.oid, 'CREATE, USAGE')";

/// Every object with an owner of its own in the schemas $1: kind, oid, schema, name, owner, access method, the types of
/// its arguments (schemas, names, as they are shown), whether it follows a table.
///
/// Not: what belongs to an extension; array and row types, which follow their elements and relations; from PostgreSQL 17
/// on multirange types, which follow their ranges; the constructors of ranges, which are always a superuser's.
pub(crate) const OBJECTS: &str = "
WITH x (kind, class, oid, ns, name, owner, method, types, follows) AS (
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                          WHEN 'S' THEN 'sequence' ELSE 'table' END,
           'pg_catalog.pg_class'::regclass, c.oid, c.relnamespace, c.relname, c.relowner, '', NULL::oid[],
           c.relkind = 'S' AND EXISTS (
               SELECT FROM pg_catalog.pg_depend d
               WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
                 AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i'))
    FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END,
           'pg_catalog.pg_type'::regclass, t.oid, t.typnamespace, t.typname, t.typowner, '', NULL, false
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
    WHERE (t.typrelid = 0 OR c.relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
      AND (t.typtype <> 'm' OR current_setting('server_version_num')::integer < 170000)
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
           'pg_catalog.pg_proc'::regclass, p.oid, p.pronamespace, p.proname, p.proowner, '', p.proargtypes::oid[], false
    FROM pg_catalog.pg_proc p
    UNION ALL
    SELECT 'operator', 'pg_catalog.pg_operator'::regclass, o.oid, o.oprnamespace, o.oprname, o.oprowner, '',
           ARRAY[o.oprleft, o.oprright], false
    FROM pg_catalog.pg_operator o
    UNION ALL
    SELECT 'operator class', 'pg_catalog.pg_opclass'::regclass, o.oid, o.opcnamespace, o.opcname, o.opcowner,
           a.amname::text, NULL, false
    FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am a ON a.oid = o.opcmethod
    UNION ALL
    SELECT 'operator family', 'pg_catalog.pg_opfamily'::regclass, o.oid, o.opfnamespace, o.opfname, o.opfowner,
           a.amname::text, NULL, false
    FROM pg_catalog.pg_opfamily o JOIN pg_catalog.pg_am a ON a.oid = o.opfmethod
    UNION ALL
    SELECT 'collation', 'pg_catalog.pg_collation'::regclass, oid, collnamespace, collname, collowner, '', NULL, false
    FROM pg_catalog.pg_collation
    UNION ALL
    SELECT 'conversion', 'pg_catalog.pg_conversion'::regclass, oid, connamespace, conname, conowner, '', NULL, false
    FROM pg_catalog.pg_conversion
    UNION ALL
    SELECT 'statistics', 'pg_catalog.pg_statistic_ext'::regclass, oid, stxnamespace, stxname, stxowner, '', NULL, false
    FROM pg_catalog.pg_statistic_ext
    UNION ALL
    SELECT 'text search dictionary', 'pg_catalog.pg_ts_dict'::regclass, oid, dictnamespace, dictname, dictowner, '',
           NULL, false
    FROM pg_catalog.pg_ts_dict
    UNION ALL
    SELECT 'text search configuration', 'pg_catalog.pg_ts_config'::regclass, oid, cfgnamespace, cfgname, cfgowner, '',
           NULL, false
    FROM pg_catalog.pg_ts_config)
SELECT x.kind, x.oid, n.nspname::text, x.name::text, pg_catalog.pg_get_userbyid(x.owner)::text, x.method,
       a.schemas, a.names, a.shown, x.follows
FROM x JOIN pg_catalog.pg_namespace n ON n.oid = x.ns
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(coalesce(tn.nspname::text, '') ORDER BY u.place), '{}') AS schemas,
           coalesce(array_agg(coalesce(t.typname::text, '') ORDER BY u.place), '{}') AS names,
           coalesce(array_agg(CASE WHEN t.oid IS NULL THEN 'NONE' ELSE format_type(t.oid, NULL) END ORDER BY u.place), '{}')
               AS shown
    FROM unnest(x.types) WITH ORDINALITY u(type, place)
    LEFT JOIN pg_catalog.pg_type t ON t.oid = u.type LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace) a
WHERE n.nspname::text = ANY($1)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                  WHERE e.classid = x.class AND e.objid = x.oid
                    AND (e.deptype = 'e' OR e.deptype = 'i' AND x.class = 'pg_catalog.pg_proc'::regclass))
ORDER BY x.kind, n.nspname, x.name, a.shown";
