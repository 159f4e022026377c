//! Reads the file of `--config`.

use std::path::Path;

use pgentra_system::Files;
use pgentra_toml_lines::{At, Entry, Table, Value, parse};

use crate::error::Problems;
use crate::keys::{Form, KEYS, Key};
use crate::layer::{Layer, Setting, SettingOrigin};
use crate::nearest::nearest;

/// Longest file in bytes.
const LENGTH: usize = 1024 * 1024;
/// The key with the server in a target's table.
const SERVER: &str = "server";
const TARGET: &str = "target";

/// The content of a file.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The settings of the whole process.
    pub(crate) layer: Layer,
    pub(crate) targets: Vec<WrittenTarget>,
    /// Whether the file has, or may have, a target that could not be read. Then a missing server is
    /// not reported as a further problem.
    pub(crate) lost_target: bool,
}

/// A `[[target]]` table.
#[derive(Debug)]
pub(crate) struct WrittenTarget {
    pub(crate) server: String,
    /// The line where the table begins.
    pub(crate) place: String,
    pub(crate) layer: Layer,
}

/// Reads the file. Everything that is wrong with it is added to `problems`.
pub(crate) fn read(files: &Files, path: &Path, problems: &mut Problems) -> Written {
    let text = match files.read_text(path, LENGTH) {
        Ok(text) => text,
        Err(error) => {
            problems.add(path.display(), format!("cannot be read: {error}"));
            return Written { lost_target: true, ..Written::default() };
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
        Written { lost_target: true, ..Written::default() }
    }
}

struct Reading<'a> {
    path: &'a Path,
    problems: &'a mut Problems,
}

impl Reading<'_> {
    fn document(&mut self, table: Table) -> Written {
        let mut written = Written { lost_target: table.has(TARGET), ..Written::default() };
        for Entry { key: name, line, value } in table.entries {
            let origin = self.origin(line, &name);
            match (name.as_str(), value.value) {
                (TARGET, Value::Array(targets)) => {
                    for target in targets {
                        match target.value {
                            Value::Table(table) => written.targets.extend(self.target(table)),
                            _ => self.problems.add(&origin, "is a list of tables: write [[target]]"),
                        }
                    }
                }
                (TARGET, _) => self.problems.add(&origin, "is a list of tables: write [[target]]"),
                (word, value) => match Key::find(word) {
                    Some(key) => written.layer.extend(self.said(key, origin, value)),
                    None => self.unknown(&origin, word, TARGET),
                },
            }
        }
        written
    }

    fn target(&mut self, table: Table) -> Option<WrittenTarget> {
        let (start, has_server) = (table.line, table.has(SERVER));
        let mut server = None;
        let mut layer = Layer::default();
        for Entry { key: name, line, value } in table.entries {
            let origin = self.origin(line, &name);
            match (name.as_str(), value.value) {
                (SERVER, Value::Text(text)) => {
                    server = Some((text, format!("{}:{line}", self.path.display())));
                }
                (SERVER, _) => {
                    self.problems.add(&origin, "is a text: a connection URI or a conninfo string");
                }
                (word, value) => match Key::find(word) {
                    Some(key) if key.is_targets() => layer.extend(self.said(key, origin, value)),
                    Some(_) => self
                        .problems
                        .add(&origin, "holds for the whole process: write it above the first [[target]]"),
                    None => self.unknown(&origin, word, SERVER),
                },
            }
        }
        if !has_server {
            let origin = format!("{}:{start} [[{TARGET}]]", self.path.display());
            self.problems.add(origin, format!("names no {SERVER}"));
        }
        let (server, place) = server?;
        Some(WrittenTarget { server, place, layer })
    }

    fn said(&mut self, key: &'static Key, origin: SettingOrigin, value: Value) -> Option<Setting> {
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

    fn unknown(&mut self, origin: &SettingOrigin, name: &str, more: &'static str) {
        let known = KEYS.iter().map(|key| key.name).chain([more]);
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
