//! Reads the file of `--config`.

use std::path::Path;

use pgentra_system::Files;
use pgentra_toml_lines::{At, Entry, Table, Value, parse};

use crate::error::Problems;
use crate::keys::{Form, KeyTable, SettingKey};
use crate::layer::{Setting, SettingLayer, SettingOrigin};
use crate::nearest::nearest;

/// Longest file in bytes.
const LENGTH: usize = 1024 * 1024;

/// The content of a file.
#[derive(Debug)]
pub struct Written<S: KeyTable> {
    /// The settings of the whole process.
    pub layer: SettingLayer<S>,
    /// The tables.
    pub tables: Vec<WrittenTable<S>>,
    /// Whether the file has, or may have, a table that could not be read. Then a missing server is
    /// not reported as a further problem.
    pub lost_table: bool,
}

/// A table of the kind that [`KeyTable::TABLE`] names.
#[derive(Debug)]
pub struct WrittenTable<S: KeyTable> {
    /// The text of the key that it needs.
    pub server: String,
    /// The line where the table begins.
    pub place: String,
    /// Its other settings.
    pub layer: SettingLayer<S>,
}

impl<S: KeyTable> Default for Written<S> {
    fn default() -> Self {
        Self { layer: SettingLayer::default(), tables: Vec::new(), lost_table: false }
    }
}

/// Reads the file. Everything that is wrong with it is added to `problems`.
pub fn read<S: KeyTable>(files: &Files, path: &Path, problems: &mut Problems) -> Written<S> {
    let text = match files.read_text(path, LENGTH) {
        Ok(text) => text,
        Err(error) => {
            problems.add(path.display(), format!("cannot be read: {error}"));
            return Written { lost_table: true, ..Written::default() };
        }
    };
    let (table, faults) = parse(&text);
    for fault in &faults {
        problems.add(format!("{}:{}", path.display(), fault.line), &fault.message);
    }
    // A part that could not be parsed would be reported again as missing or misspelled.
    if faults.is_empty() {
        Reading { path, problems }.document(table)
    } else {
        Written { lost_table: true, ..Written::default() }
    }
}

struct Reading<'a> {
    path: &'a Path,
    problems: &'a mut Problems,
}

impl Reading<'_> {
    fn document<S: KeyTable>(&mut self, table: Table) -> Written<S> {
        let mut written = Written { lost_table: table.has(S::TABLE), ..Written::default() };
        for Entry { key: name, line, value } in table.entries {
            let origin = self.origin(line, &name);
            let is_table = name == S::TABLE;
            let no_list = || format!("is a list of tables: write [[{}]]", S::TABLE);
            match value.value {
                Value::Array(tables) if is_table => {
                    for table in tables {
                        match table.value {
                            Value::Table(table) => written.tables.extend(self.table(table)),
                            _ => self.problems.add(&origin, no_list()),
                        }
                    }
                }
                _ if is_table => self.problems.add(&origin, no_list()),
                value => match SettingKey::find(&name) {
                    Some(key) => written.layer.extend(self.said(key, origin, value)),
                    None => self.unknown::<S>(&origin, &name, S::TABLE),
                },
            }
        }
        written
    }

    fn table<S: KeyTable>(&mut self, table: Table) -> Option<WrittenTable<S>> {
        let (needed, what) = S::SERVER;
        let (start, has_server) = (table.line, table.has(needed));
        let mut server = None;
        let mut layer = SettingLayer::default();
        for Entry { key: name, line, value } in table.entries {
            let origin = self.origin(line, &name);
            let is_server = name == needed;
            match value.value {
                Value::Text(text) if is_server => {
                    server = Some((text, format!("{}:{line}", self.path.display())));
                }
                _ if is_server => self.problems.add(&origin, format!("is a text: {what}")),
                value => match SettingKey::find(&name) {
                    Some(key) if key.is_of_table() => layer.extend(self.said(key, origin, value)),
                    Some(_) => self.problems.add(
                        &origin,
                        format!("holds for the whole process: write it above the first [[{}]]", S::TABLE),
                    ),
                    None => self.unknown::<S>(&origin, &name, needed),
                },
            }
        }
        if !has_server {
            let origin = format!("{}:{start} [[{}]]", self.path.display(), S::TABLE);
            self.problems.add(origin, format!("names no {needed}"));
        }
        let (server, place) = server?;
        Some(WrittenTable { server, place, layer })
    }

    fn said<S: KeyTable>(
        &mut self,
        key: &'static SettingKey<S>,
        origin: SettingOrigin,
        value: Value,
    ) -> Option<Setting<S>> {
        let type_name = value.type_name();
        let values = match (key.form, value) {
            // Whether the number is whole is checked when it is read.
            (Form::Number | Form::Time, Value::Integer(number) | Value::Float(number)) => Ok(vec![number]),
            (Form::Time, Value::Text(text)) => Ok(vec![text]),
            (Form::Number, _) => Err("is a number"),
            (Form::Time, _) => Err("is a time, such as \"5m\", or a number of seconds"),
            (Form::Switch, Value::Boolean(value)) => Ok(vec![value.to_string()]),
            (Form::Switch, _) => Err("is true or false"),
            (Form::Text, Value::Text(text)) => Ok(vec![text]),
            (Form::Text, _) => Err("is a text"),
            (Form::List, value) => value.into_texts().ok_or("is a list of texts"),
            (Form::Table, Value::Table(table)) => pairs(table),
            (Form::Table, _) => Err("is a table of texts"),
        };
        match values {
            Ok(values) => Some(Setting { key, values, origin }),
            Err(what) => {
                self.problems.add(&origin, format!("{what}, not a {type_name}"));
                None
            }
        }
    }

    fn unknown<S: KeyTable>(&mut self, origin: &SettingOrigin, name: &str, more: &'static str) {
        let known = S::keys().iter().map(|key| key.name).chain([more]);
        self.problems.add(origin, format!("is no key{}", nearest(name, known)));
    }

    fn origin(&self, line: usize, name: &str) -> SettingOrigin {
        SettingOrigin::File { path: self.path.to_owned(), line, key: name.to_owned() }
    }
}

/// A table in the form of a flag: `name=value` for each value.
fn pairs(table: Table) -> Result<Vec<String>, &'static str> {
    const TEXTS: &str = "is a table whose values are texts, or lists of texts";
    let mut pairs = Vec::new();
    for Entry { key: name, value: At { value, .. }, .. } in table.entries {
        for value in value.into_texts().ok_or(TEXTS)? {
            if value.contains('=') {
                return Err("is a table whose values have no `=`");
            }
            pairs.push(format!("{name}={value}"));
        }
    }
    Ok(pairs)
}
