//! What a role is to own.

use std::collections::BTreeMap;

use pgentra_connect::quote;

use super::name;
use crate::desired::{Desired, DesiredOwnership, OwnTarget};
use crate::document::{Keys, Reader};

const OWN_KEYS: &str = "database, schema, objects";

pub(crate) fn read(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<DesiredOwnership> {
    let line = keys.line;
    let database = name::identifier(&mut keys, "database", reader).unwrap_or_else(|| database.to_owned());
    let schema = name::identifier(&mut keys, "schema", reader);
    let objects = keys.text("objects", reader);
    keys.end("own", OWN_KEYS, reader);
    if let Some(objects) = objects.as_ref().filter(|objects| objects.value != "*") {
        reader.fault(objects.line, "objects is \"*\": every object of the schema");
        return None;
    }
    let system = |schema: &str| schema.starts_with("pg_") || schema == "information_schema";
    let on = match (schema, objects) {
        (None, None) => OwnTarget::Database,
        (None, Some(_)) => {
            reader.fault(line, "own with objects names their schema");
            return None;
        }
        (Some(schema), _) if system(&schema) => {
            reader.fault(line, format!("the schema {} belongs to the server itself", quote::name(&schema)));
            return None;
        }
        (Some(schema), None) => OwnTarget::Schema(schema),
        (Some(schema), Some(_)) => OwnTarget::Objects(schema),
    };
    Some(DesiredOwnership { database, on, line })
}

/// One thing for two owners.
pub(crate) fn twice(roles: &[Desired], reader: &mut Reader) {
    let mut owners: BTreeMap<(&str, &OwnTarget), &str> = BTreeMap::new();
    for role in roles {
        for want in &role.owns {
            let name = role.name.as_str();
            let first = owners.insert((&want.database, &want.on), name);
            if let Some(first) = first.filter(|first| *first != name) {
                let message =
                    format!("{} is to own what {} is to own already", quote::name(name), quote::name(first));
                reader.fault(want.line, message);
            }
        }
    }
}
