//! Lists of entries that have a name: variables, volumes, mounts, containers.

use serde_json::{Map, Value};

/// Where new entries are put.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Position {
    /// Before the others, which may refer to them.
    Front,
    Back,
}

/// Makes the list `field` of an object hold the entries that are `wanted`. Entries that an earlier run has put in
/// (`is_ours`) are replaced where they stand, or removed. Entries of others stay, and win over a wanted one of the same
/// `key`. Returns the keys of the entries that were put in.
pub(crate) fn reconcile(
    object: &mut Map<String, Value>,
    (field, key): (&str, &str),
    is_ours: impl Fn(&Value) -> bool,
    mut wanted: Vec<Value>,
    position: Position,
) -> Vec<String> {
    let mut list = match object.get_mut(field) {
        Some(Value::Array(list)) => std::mem::take(list),
        None | Some(Value::Null) => Vec::new(),
        // It is no list: the API server says so.
        Some(_) => return Vec::new(),
    };
    let had = !list.is_empty();
    let mut put = Vec::new();
    let keyed = |entry: &Value| entry[key].as_str().unwrap_or_default().to_owned();
    list.retain_mut(|entry| {
        if !is_ours(entry) {
            return true;
        }
        let Some(at) = wanted.iter().position(|one| one[key] == entry[key]) else { return false };
        let next = wanted.remove(at);
        put.push(keyed(&next));
        if !contains(entry, &next) {
            *entry = next;
        }
        true
    });
    wanted.retain(|one| !list.iter().any(|entry| entry[key] == one[key]));
    put.extend(wanted.iter().map(keyed));
    match position {
        Position::Front => drop(list.splice(0..0, wanted)),
        Position::Back => list.extend(wanted),
    }
    if !list.is_empty() {
        object.insert(field.to_owned(), Value::Array(list));
    } else if had {
        object.remove(field);
    }
    put
}

/// Whether a value has everything of another: an API server adds defaults to what it is given.
pub(crate) fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| contains(value, part)))
        }
        (Value::Array(value), Value::Array(part)) => {
            value.len() == part.len() && value.iter().zip(part).all(|(value, part)| contains(value, part))
        }
        (value, part) => value == part,
    }
}

/// The entries of a list of an object; none if there is no such list.
pub(crate) fn entries<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}
