//! Privileges in a file.

use pgentra_toml_lines::At;

use super::name::{identifier, owners, unusable};
use crate::desired::{DesiredDefault, DesiredGrant, GrantTarget, ObjectNames};
use crate::document::{Keys, Reader};
use crate::privilege::{Class, Privileges};

const GRANT_KEYS: &str = "database, schema, tables, sequences, functions, types, privileges";
const DEFAULT_KEYS: &str = "database, schema, owner, on, privileges";

pub(crate) fn read(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<DesiredGrant> {
    let line = keys.line;
    let database = identifier(&mut keys, "database", reader).unwrap_or_else(|| database.to_owned());
    let schema = identifier(&mut keys, "schema", reader);
    let mut objects = Vec::new();
    for class in Class::OF_SCHEMA {
        objects.extend(keys.texts(class.plural(), reader).map(|names| (class, names)));
    }
    let words = keys.texts("privileges", reader);
    keys.end("a grant", GRANT_KEYS, reader);
    let on = match (schema, &*objects) {
        (_, [_, _, ..]) => {
            reader.fault(line, "a grant is on tables, sequences, functions or types; write one for each");
            return None;
        }
        (None, [_]) => {
            reader.fault(line, "a grant on tables, sequences, functions or types names their schema");
            return None;
        }
        (None, []) => GrantTarget::Database,
        (Some(schema), []) => GrantTarget::Schema(schema),
        (Some(schema), [(class, names)]) => {
            GrantTarget::Objects { class: *class, schema, names: object_names(*class, names, reader)? }
        }
    };
    let privileges = privileges(words, line, on.class(), reader)?;
    Some(DesiredGrant { database, on, privileges, line })
}

/// A default for each of the roles that create objects.
pub(crate) fn defaults(mut keys: Keys, database: &str, reader: &mut Reader) -> Vec<DesiredDefault> {
    let line = keys.line;
    let database = identifier(&mut keys, "database", reader).unwrap_or_else(|| database.to_owned());
    let schema = identifier(&mut keys, "schema", reader);
    let has_owner = keys.has("owner");
    let owners = owners(&mut keys, "owner", reader);
    if has_owner && owners.is_empty() {
        reader
            .fault(line, "owner names at least one role; without it the role that applies the file is meant");
    }
    let on = keys.text("on", reader);
    let words = keys.texts("privileges", reader);
    keys.end("a default", DEFAULT_KEYS, reader);
    let class =
        on.as_ref().and_then(|on| Class::OF_SCHEMA.into_iter().find(|class| class.plural() == on.value));
    let Some(class) = class else {
        reader.fault(
            on.map_or(line, |on| on.line),
            "a default is on = \"tables\", \"sequences\", \"functions\" or \"types\"",
        );
        return Vec::new();
    };
    let Some(privileges) = privileges(words, line, class, reader) else { return Vec::new() };
    let default = |owner: Option<String>| DesiredDefault {
        database: database.clone(),
        owner,
        schema: schema.clone(),
        class,
        privileges: privileges.clone(),
        line,
    };
    match owners.is_empty() {
        true => vec![default(None)],
        false => owners.into_iter().map(|owner| default(Some(owner))).collect(),
    }
}

fn object_names(class: Class, names: &At<Vec<String>>, reader: &mut Reader) -> Option<ObjectNames> {
    if names.value.iter().any(|name| name == "*") {
        if names.value.len() == 1 {
            return Some(ObjectNames::All);
        }
        reader.fault(names.line, "\"*\" means every object, and stands alone");
        return None;
    }
    if names.value.is_empty() {
        reader.fault(names.line, "name the objects, or \"*\" for every one");
        return None;
    }
    for name in &names.value {
        // The argument types of a function make its text longer than a name.
        let name = match class {
            Class::Function => name.split_once('(').map_or(&**name, |(name, _)| name),
            _ => name,
        };
        if let Some(message) = unusable(name) {
            reader.fault(names.line, message);
            return None;
        }
    }
    Some(ObjectNames::Some(names.value.iter().cloned().collect()))
}

fn privileges(
    words: Option<At<Vec<String>>>,
    line: usize,
    class: Class,
    reader: &mut Reader,
) -> Option<Privileges> {
    let words = words.filter(|words| !words.value.is_empty());
    let Some(At { value, line }) = words else {
        reader.fault(line, "privileges are missing");
        return None;
    };
    match Privileges::of(class, &value.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(privileges) => Some(privileges),
        Err(unknown) => {
            let possible = class.privileges().join(", ");
            for word in unknown {
                reader.fault(
                    line,
                    format!("{word:?} is no privilege on a {class}; those are {possible} and ALL"),
                );
            }
            None
        }
    }
}
