//! The file of roles: see `docs/roles.md`.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use pgentra_toml_lines::At;
use uuid::Uuid;

use super::ObjectType;
use super::desired::{Desired, PrincipalRef, RolesFile};
use super::document::{Keys, Reader};
use super::fault::Diagnostics;
use super::membership::MembershipOptions;

mod grant;
mod member;
mod name;
mod own;
mod template;

/// The largest file: room for thousands of roles.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;

const ROLE_KEYS: &str = "name, login, kind, object_id, client_id, admin, mfa, member_of, own, grant, default";

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
        let document = reader.document(text);
        Self::of(document, database, reader)
    }

    /// Reads the same document as JSON: the keys, their values and their meaning are those of a file. Where a grant names no
    /// database, `database` is meant.
    ///
    /// Its length is the caller's to limit.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its path in the document.
    pub fn from_json(
        document: &serde_json::Map<String, serde_json::Value>,
        database: &str,
    ) -> Result<Self, Diagnostics> {
        let mut reader = Reader::default();
        let document = reader.json(document);
        Self::of(document, database, reader)
    }

    fn of(mut document: Keys, database: &str, mut reader: Reader) -> Result<Self, Diagnostics> {
        let mut roles = Vec::new();
        for keys in document.tables("role", &mut reader) {
            roles.extend(role(keys, database, &mut reader));
        }
        let templates: Vec<_> = document
            .tables("schema", &mut reader)
            .into_iter()
            .filter_map(|keys| template::read(keys, database, &mut reader))
            .collect();
        document.end("the file", "role and schema (written [[role]], [[schema]])", &mut reader);
        for template in &templates {
            template.expand(&mut roles);
        }
        twice(&roles, &mut reader);
        own::twice(&roles, &mut reader);
        circles(&roles, &mut reader);
        match reader.faults.is_empty() {
            true => Ok(Self { roles, places: reader.places }),
            false => Err(Diagnostics::of(reader.faults).placed(&reader.places)),
        }
    }
}

fn role(mut keys: Keys, database: &str, reader: &mut Reader) -> Option<Desired> {
    let line = keys.line;
    let name = keys.text("name", reader);
    let can_login = keys.flag("login", true, reader);
    let has_principal =
        ["kind", "object_id", "client_id", "admin", "mfa"].into_iter().find(|key| keys.has(key));
    if let Some(key) = has_principal.filter(|_| !can_login) {
        reader
            .fault(line, format!("a role with login = false is mapped to no principal, so it has no {key}"));
    }
    let kind = kind(&mut keys, reader);
    let identity = identity(&mut keys, kind, reader);
    let is_admin = keys.flag("admin", false, reader);
    let is_mfa = keys.flag("mfa", false, reader);
    if is_mfa && kind == Some(ObjectType::Service) {
        reader.fault(line, "mfa is for users and groups: a service has no second factor");
    }
    let member_of = member::read(&mut keys, name.as_ref(), reader);
    let all = |tables: Vec<Keys>| tables.into_iter();
    let owns = all(keys.tables("own", reader)).filter_map(|keys| own::read(keys, database, reader)).collect();
    let grants =
        all(keys.tables("grant", reader)).filter_map(|keys| grant::read(keys, database, reader)).collect();
    let defaults = all(keys.tables("default", reader))
        .flat_map(|keys| grant::defaults(keys, database, reader))
        .collect();
    keys.end("a role", ROLE_KEYS, reader);
    let name = match name {
        None => {
            reader.fault(line, "a role needs a name");
            return None;
        }
        Some(name) => name::role(name, reader)?,
    };
    Some(Desired {
        name,
        can_login,
        kind: kind?,
        identity,
        is_admin,
        is_mfa,
        member_of,
        owns,
        grants,
        defaults,
        line,
    })
}

fn identity(keys: &mut Keys, kind: Option<ObjectType>, reader: &mut Reader) -> PrincipalRef {
    let line = keys.line;
    let object_id = id(keys, "object_id", reader);
    let client_id = id(keys, "client_id", reader);
    if object_id.is_some() && client_id.is_some() {
        reader.fault(line, "a role has an object_id or a client_id, not both");
    }
    if client_id.is_some() && kind.is_some_and(|kind| kind != ObjectType::Service) {
        reader.fault(line, "only a service has a client_id; a user or a group has an object_id");
    }
    match (object_id, client_id) {
        (Some(id), _) => PrincipalRef::ObjectId(id),
        (None, Some(id)) => PrincipalRef::ClientId(id),
        (None, None) => PrincipalRef::Name,
    }
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

/// One role twice, and two roles for one principal.
fn twice(roles: &[Desired], reader: &mut Reader) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut principals: BTreeMap<Uuid, &Desired> = BTreeMap::new();
    for role in roles {
        if let Some(first) = names.insert(role.name.as_str(), role.line) {
            reader.fault(
                role.line,
                format!(
                    "the role {} is in {} already",
                    quote::name(role.name.as_str()),
                    reader.places.name(first)
                ),
            );
        }
        let id = match role.identity {
            PrincipalRef::ObjectId(id) | PrincipalRef::ClientId(id) => id,
            PrincipalRef::Name => continue,
        };
        if let Some(first) = principals.insert(id, role).filter(|first| first.name != role.name) {
            let message = format!(
                "{} and {} ({}) are for one principal, {id}; one of them is enough",
                quote::name(role.name.as_str()),
                quote::name(first.name.as_str()),
                reader.places.name(first.line)
            );
            reader.fault(role.line, message);
        }
    }
}

/// Roles of the file that are members of each other in a circle.
fn circles(roles: &[Desired], reader: &mut Reader) {
    let groups: BTreeMap<&str, &BTreeMap<String, MembershipOptions>> =
        roles.iter().map(|role| (role.name.as_str(), &role.member_of)).collect();
    for role in roles {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&str> = role.member_of.keys().map(String::as_str).collect();
        while let Some(group) = todo.pop() {
            // A role that lists itself directly is reported where `member_of` is read.
            if group == role.name.as_str() && !role.member_of.contains_key(group) {
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
                    groups.get(group).into_iter().flat_map(|groups| groups.keys().map(String::as_str)),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
