//! The file of roles: see `docs/roles.md`.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use pgentra_toml_lines::At;
use uuid::Uuid;

use super::ObjectType;
use super::document::{Keys, Reader};
use super::fault::Diagnostics;
use super::name::{self, NameError, RoleName};
use super::privilege::{Class, Privileges};

/// The largest file: room for thousands of roles.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;

const ROLE_KEYS: &str = "name, kind, object_id, client_id, admin, mfa, member_of, grant, default";
const GRANT_KEYS: &str = "database, schema, tables, sequences, functions, privileges";
const DEFAULT_KEYS: &str = "database, schema, owner, on, privileges";

/// Which roles are to be there, and what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolesFile {
    pub(crate) roles: Vec<Desired>,
}

/// One role of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub(crate) name: RoleName,
    pub(crate) kind: ObjectType,
    pub(crate) identity: PrincipalRef,
    pub(crate) is_admin: bool,
    pub(crate) is_mfa: bool,
    pub(crate) member_of: BTreeSet<String>,
    pub(crate) grants: Vec<DesiredGrant>,
    pub(crate) defaults: Vec<DesiredDefault>,
    pub(crate) line: usize,
}

/// Whose a role is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalRef {
    /// The principal with this object id.
    ObjectId(Uuid),
    /// The service principal with this client (application) id.
    ClientId(Uuid),
    /// The principal that has the role's name in the tenant. The server looks it up.
    Name,
}

/// Privileges that a role is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredGrant {
    pub(crate) database: String,
    pub(crate) on: GrantTarget,
    pub(crate) privileges: Privileges,
    pub(crate) line: usize,
}

/// The object, or the class of objects, that privileges are granted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantTarget {
    Database,
    Schema(String),
    Objects { class: Class, schema: String, names: ObjectNames },
}

/// Which objects of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectNames {
    All,
    Some(BTreeSet<String>),
}

/// Default privileges: those that a role gets on objects that are created later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredDefault {
    pub(crate) database: String,
    /// The owner of the objects; `None` is the user who applies the file.
    pub(crate) owner: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) class: Class,
    pub(crate) privileges: Privileges,
    pub(crate) line: usize,
}

impl RolesFile {
    /// Reads a file (TOML, see `docs/roles.md`). Where a grant names no database, `database` is meant.
    ///
    /// # Errors
    /// Everything that is wrong with it, without asking any server.
    pub fn parse(text: &str, database: &str) -> Result<Self, Diagnostics> {
        let mut reader = Reader::default();
        if text.len() > SIZE_LIMIT {
            reader.fault(1, format!("a file of roles has at most {SIZE_LIMIT} bytes"));
            return Err(Diagnostics::of(reader.faults));
        }
        let mut document = reader.document(text);
        let mut roles = Vec::new();
        for keys in document.tables("role", &mut reader) {
            roles.extend(role(keys, database, &mut reader));
        }
        document.end("the file", "role (written [[role]])", &mut reader);
        twice(&roles, &mut reader);
        circles(&roles, &mut reader);
        match reader.faults.is_empty() {
            true => Ok(Self { roles }),
            false => Err(Diagnostics::of(reader.faults)),
        }
    }

    /// Its roles, in the order of the file.
    pub fn roles(&self) -> &[Desired] {
        &self.roles
    }

    /// The databases that it names.
    pub(crate) fn databases(&self) -> BTreeSet<&str> {
        let grants = self.roles.iter().flat_map(|role| role.grants.iter().map(|want| &*want.database));
        let defaults = self.roles.iter().flat_map(|role| role.defaults.iter().map(|want| &*want.database));
        grants.chain(defaults).collect()
    }
}

impl Desired {
    /// The name that the role is to have.
    pub fn name(&self) -> &RoleName {
        &self.name
    }

    /// The kind of the Entra principal.
    pub fn kind(&self) -> ObjectType {
        self.kind
    }

    /// Whose it is to be.
    pub fn identity(&self) -> PrincipalRef {
        self.identity
    }
}

fn role(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<Desired> {
    let line = keys.line;
    let name = keys.text("name", reader);
    let kind = kind(&mut keys, reader);
    let object_id = id(&mut keys, "object_id", reader);
    let client_id = id(&mut keys, "client_id", reader);
    if object_id.is_some() && client_id.is_some() {
        reader.fault(line, "a role has an object_id or a client_id, not both");
    }
    if client_id.is_some() && kind.is_some_and(|kind| kind != ObjectType::Service) {
        reader.fault(line, "only a service has a client_id; a user or a group has an object_id");
    }
    let identity = match (object_id, client_id) {
        (Some(id), _) => PrincipalRef::ObjectId(id),
        (None, Some(id)) => PrincipalRef::ClientId(id),
        (None, None) => PrincipalRef::Name,
    };
    let is_admin = keys.flag("admin", reader);
    let is_mfa = keys.flag("mfa", reader);
    if is_mfa && kind == Some(ObjectType::Service) {
        reader.fault(line, "mfa is for users and groups: a service has no second factor");
    }
    let member_of = member_of(&mut keys, name.as_ref(), reader);
    let grants =
        keys.tables("grant", reader).into_iter().filter_map(|keys| grant(keys, database, reader)).collect();
    let defaults = keys
        .tables("default", reader)
        .into_iter()
        .filter_map(|keys| default(keys, database, reader))
        .collect();
    keys.end("a role", ROLE_KEYS, reader);
    let name = match name {
        None => {
            reader.fault(line, "a role needs a name");
            return None;
        }
        Some(At { value, line }) => match value.parse() {
            Ok(name) => name,
            Err(error) => {
                reader.fault(line, format!("{value:?}: {error}"));
                return None;
            }
        },
    };
    Some(Desired { name, kind: kind?, identity, is_admin, is_mfa, member_of, grants, defaults, line })
}

fn kind(keys: &mut Keys, reader: &mut Reader) -> Option<ObjectType> {
    let Some(At { value, line }) = keys.text("kind", reader) else { return Some(ObjectType::default()) };
    value.parse().map_err(|error| reader.fault(line, format!("{error}, not {value:?}"))).ok()
}

fn id(keys: &mut Keys, key: &str, reader: &mut Reader) -> Option<Uuid> {
    let At { value, line } = keys.text(key, reader)?;
    let found = guid(&value);
    if found.is_none() {
        reader.fault(
            line,
            format!("{key} is a GUID such as 00000000-1111-2222-3333-444444444444, not {value:?}"),
        );
    }
    found
}

/// A GUID in the form in which Azure writes them, and no other; the nil GUID is refused.
pub fn guid(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|id| text.len() == 36 && !id.is_nil())
}

fn member_of(keys: &mut Keys, role: Option<&At<String>>, reader: &mut Reader) -> BTreeSet<String> {
    let Some(At { value, line }) = keys.texts("member_of", reader) else { return BTreeSet::new() };
    for group in &value {
        if let Err(error) = name::check(group) {
            reader.fault(line, format!("member_of {group:?}: {error}"));
        } else if name::is_reserved(group) && !group.starts_with("pg_") {
            reader.fault(
                line,
                format!("member_of {group:?}: that is what `admin` and the mapping itself are for"),
            );
        } else if role.is_some_and(|role| role.value == *group) {
            reader.fault(line, format!("{group:?} is to be a member of itself"));
        }
    }
    value.into_iter().collect()
}

fn grant(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<DesiredGrant> {
    let line = keys.line;
    let database = identifier(&mut keys, "database", reader).unwrap_or_else(|| database.to_owned());
    let schema = identifier(&mut keys, "schema", reader);
    let mut objects = Vec::new();
    for class in [Class::Table, Class::Sequence, Class::Function] {
        objects.extend(keys.texts(class.plural(), reader).map(|names| (class, names)));
    }
    let words = keys.texts("privileges", reader);
    keys.end("a grant", GRANT_KEYS, reader);
    let on = match (schema, &*objects) {
        (_, [_, _, ..]) => {
            reader.fault(line, "a grant is on tables, sequences or functions; write one for each");
            return None;
        }
        (None, [_]) => {
            reader.fault(line, "a grant on tables, sequences or functions names their schema");
            return None;
        }
        (None, []) => GrantTarget::Database,
        (Some(schema), []) => GrantTarget::Schema(schema),
        (Some(schema), [(class, names)]) => {
            GrantTarget::Objects { class: *class, schema, names: object_names(names, reader)? }
        }
    };
    let privileges = privileges(words, line, on.class(), reader)?;
    Some(DesiredGrant { database, on, privileges, line })
}

impl GrantTarget {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Database => Class::Database,
            Self::Schema(_) => Class::Schema,
            Self::Objects { class, .. } => *class,
        }
    }
}

fn object_names(names: &At<Vec<String>>, reader: &mut Reader) -> Option<ObjectNames> {
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
        if let Some(message) = unusable(name) {
            reader.fault(names.line, message);
            return None;
        }
    }
    Some(ObjectNames::Some(names.value.iter().cloned().collect()))
}

fn default(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<DesiredDefault> {
    let line = keys.line;
    let database = identifier(&mut keys, "database", reader).unwrap_or_else(|| database.to_owned());
    let schema = identifier(&mut keys, "schema", reader);
    let owner = identifier(&mut keys, "owner", reader);
    let on = keys.text("on", reader);
    let words = keys.texts("privileges", reader);
    keys.end("a default", DEFAULT_KEYS, reader);
    let classes = [Class::Table, Class::Sequence, Class::Function];
    let class = on.as_ref().and_then(|on| classes.into_iter().find(|class| class.plural() == on.value));
    let Some(class) = class else {
        reader.fault(
            on.map_or(line, |on| on.line),
            "a default is on = \"tables\", \"sequences\" or \"functions\"",
        );
        return None;
    };
    let privileges = privileges(words, line, class, reader)?;
    Some(DesiredDefault { database, owner, schema, class, privileges, line })
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

/// The name of an existing object: any name that PostgreSQL allows.
fn identifier(keys: &mut Keys, key: &str, reader: &mut Reader) -> Option<String> {
    let At { value, line } = keys.text(key, reader)?;
    if let Some(message) = unusable(&value) {
        reader.fault(line, format!("{key}: {message}"));
    }
    Some(value)
}

fn unusable(name: &str) -> Option<String> {
    match name.len() {
        0 => Some(NameError::Empty.to_string()),
        length if length > name::NAME_LIMIT => Some(format!("{name:?}: {}", NameError::TooLong(length))),
        _ if name.contains('\0') => Some(format!("{name:?}: {}", NameError::Control)),
        _ => None,
    }
}

/// One role twice, and two roles for one principal.
fn twice(roles: &[Desired], reader: &mut Reader) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut principals: BTreeMap<Uuid, &Desired> = BTreeMap::new();
    for role in roles {
        if let Some(first) = names.insert(role.name.as_str(), role.line) {
            reader.fault(
                role.line,
                format!("the role {} is in line {first} already", quote::name(role.name.as_str())),
            );
        }
        let id = match role.identity {
            PrincipalRef::ObjectId(id) | PrincipalRef::ClientId(id) => id,
            PrincipalRef::Name => continue,
        };
        if let Some(first) = principals.insert(id, role).filter(|first| first.name != role.name) {
            let message = format!(
                "{} and {} (line {}) are for one principal, {id}; one of them is enough",
                quote::name(role.name.as_str()),
                quote::name(first.name.as_str()),
                first.line
            );
            reader.fault(role.line, message);
        }
    }
}

/// Roles of the file that are members of each other in a circle.
fn circles(roles: &[Desired], reader: &mut Reader) {
    let groups: BTreeMap<&str, &BTreeSet<String>> =
        roles.iter().map(|role| (role.name.as_str(), &role.member_of)).collect();
    for role in roles {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&str> = role.member_of.iter().map(String::as_str).collect();
        while let Some(group) = todo.pop() {
            // A role that lists itself directly is reported where `member_of` is read.
            if group == role.name.as_str() && !role.member_of.contains(group) {
                reader.fault(
                    role.line,
                    format!(
                        "{} is to be a member of itself, through others",
                        quote::name(role.name.as_str())
                    ),
                );
                break;
            }
            if seen.insert(group) {
                todo.extend(
                    groups.get(group).into_iter().flat_map(|groups| groups.iter().map(String::as_str)),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
