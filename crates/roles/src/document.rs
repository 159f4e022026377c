//! A file of roles with every fault told, each with its line; or the same document as JSON, each with its path.

use pgentra_toml_lines::{At, Entry, Table, Value, parse};
use serde_json::Value as Json;

use super::fault::Diagnostic;
use super::places::DocumentPlaces;

/// What is wrong with a text so far.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) faults: Vec<Diagnostic>,
    pub(crate) places: DocumentPlaces,
}

/// A table whose keys are taken one by one.
pub(crate) struct Keys {
    table: Table,
    pub(crate) line: usize,
}

/// An item of a list: a text, or a table where there is more to say.
pub(crate) enum Item {
    Text(String),
    Keys(Keys),
}

impl Reader {
    /// The document; what cannot be parsed is a fault each.
    pub(crate) fn document(&mut self, text: &str) -> Keys {
        let (table, faults) = parse(text);
        for fault in faults {
            self.fault(fault.line, fault.message);
        }
        Keys::of(table)
    }

    /// The same document as JSON.
    pub(crate) fn json(&mut self, document: &serde_json::Map<String, Json>) -> Keys {
        let mut paths = Vec::new();
        let table = counted_table(document, String::new(), &mut paths);
        self.places = DocumentPlaces::of(paths);
        Keys::of(table)
    }

    pub(crate) fn fault(&mut self, line: usize, message: impl Into<String>) {
        let message = message.into();
        self.faults.push(Diagnostic { line: Some(line), path: None, message });
    }
}

impl Keys {
    fn of(table: Table) -> Self {
        Self { line: table.line, table }
    }

    /// A text; not there, or no text, is `None`.
    pub(crate) fn text(&mut self, key: &str, reader: &mut Reader) -> Option<At<String>> {
        let At { value, line } = self.take(key)?;
        match value {
            Value::Text(value) => Some(At { value, line }),
            _ => {
                reader.fault(line, format!("{key} is a text in quotes"));
                None
            }
        }
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.has(key)
    }

    /// A flag, and what it is where it is not there.
    pub(crate) fn flag(&mut self, key: &str, default: bool, reader: &mut Reader) -> bool {
        match self.take(key) {
            None => default,
            Some(At { value: Value::Boolean(flag), .. }) => flag,
            Some(At { line, .. }) => {
                reader.fault(line, format!("{key} is true or false"));
                default
            }
        }
    }

    /// A list of texts and tables, or one of them in its place.
    pub(crate) fn items(&mut self, key: &str, reader: &mut Reader) -> Vec<At<Item>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let items = match value.value {
            Value::Array(items) => items,
            _ => vec![value],
        };
        let mut found = Vec::new();
        for At { value, line } in items {
            match value {
                Value::Text(text) => found.push(At { value: Item::Text(text), line }),
                Value::Table(table) => found.push(At { value: Item::Keys(Keys::of(table)), line }),
                _ => reader.fault(line, format!("{key} is a list of texts and of tables")),
            }
        }
        found
    }

    /// A list of texts, or one text in its place.
    pub(crate) fn texts(&mut self, key: &str, reader: &mut Reader) -> Option<At<Vec<String>>> {
        let At { value, line } = self.take(key)?;
        let texts = value.into_texts();
        if texts.is_none() {
            reader.fault(line, format!("{key} is a list of texts"));
        }
        texts.map(|value| At { value, line })
    }

    /// Tables under a key, as `[[key]]` makes them.
    pub(crate) fn tables(&mut self, key: &str, reader: &mut Reader) -> Vec<Keys> {
        let Some(At { value, line }) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            reader.fault(line, format!("{key} is a list of tables: write it with two brackets"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match item.value {
                Value::Table(table) => tables.push(Keys::of(table)),
                _ => reader.fault(item.line, format!("{key} is a table: write [[{key}]]")),
            }
        }
        tables
    }

    /// Whatever was not taken is not understood.
    pub(crate) fn end(self, what: &str, possible: &str, reader: &mut Reader) {
        for entry in self.table.entries {
            reader.fault(entry.line, format!("{what} has no key `{}`; its keys are {possible}", entry.key));
        }
    }

    fn take(&mut self, key: &str) -> Option<At<Value>> {
        self.table.take(key).map(|entry| entry.value)
    }
}

/// A table whose values are counted; `path` is its own, and the number of each leads to its path. A key with the value null
/// is not there.
fn counted_table(map: &serde_json::Map<String, Json>, path: String, paths: &mut Vec<String>) -> Table {
    let line = paths.len();
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    paths.push(path.clone());
    let there = map.iter().filter(|(_, value)| !value.is_null());
    let entries = there
        .map(|(key, value)| {
            let value = counted(value, below(key), paths);
            Entry { key: key.clone(), line: value.line, value }
        })
        .collect();
    Table { line, entries }
}

fn counted(value: &Json, path: String, paths: &mut Vec<String>) -> At<Value> {
    let line = paths.len();
    let value = match value {
        Json::Object(map) => Value::Table(counted_table(map, path, paths)),
        Json::Array(items) => {
            paths.push(path.clone());
            let items = items.iter().enumerate();
            Value::Array(items.map(|(at, item)| counted(item, format!("{path}[{at}]"), paths)).collect())
        }
        scalar => {
            paths.push(path);
            match scalar {
                Json::String(text) => Value::Text(text.clone()),
                Json::Bool(flag) => Value::Boolean(*flag),
                Json::Number(_) => Value::Other("number"),
                _ => Value::Other("null"),
            }
        }
    };
    At { line, value }
}
