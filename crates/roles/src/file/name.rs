//! Names in a file.

use pgentra_toml_lines::At;

use crate::document::{Keys, Reader};
use crate::name::{self, NameError, RoleName};

/// The name of a role that may be made.
pub(crate) fn role(name: At<String>, reader: &mut Reader) -> Option<RoleName> {
    let At { value, line } = name;
    value.parse().map_err(|error| reader.fault(line, format!("{value:?}: {error}"))).ok()
}

/// The name of an existing object: any name that PostgreSQL allows.
pub(crate) fn identifier(keys: &mut Keys, key: &str, reader: &mut Reader) -> Option<String> {
    let At { value, line } = keys.text(key, reader)?;
    if let Some(message) = unusable(&value) {
        reader.fault(line, format!("{key}: {message}"));
    }
    Some(value)
}

/// The names of existing roles whose defaults or objects are changed, so that none of the server's own is among them.
pub(crate) fn owners(keys: &mut Keys, key: &str, reader: &mut Reader) -> Vec<String> {
    let Some(At { value, line }) = keys.texts(key, reader) else { return Vec::new() };
    for name in &value {
        if let Some(message) = unusable(name) {
            reader.fault(line, format!("{key}: {message}"));
        } else if name::is_reserved(name) {
            reader.fault(line, format!("{key} {name:?}: {}", NameError::Reserved));
        }
    }
    value
}

pub(crate) fn unusable(name: &str) -> Option<String> {
    match name.len() {
        0 => Some(NameError::Empty.to_string()),
        length if length > name::NAME_LIMIT => Some(format!("{name:?}: {}", NameError::TooLong(length))),
        _ if name.contains('\0') => Some(format!("{name:?}: {}", NameError::Control)),
        _ => None,
    }
}
