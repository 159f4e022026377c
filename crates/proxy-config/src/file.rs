//! Reads the file of `--config`.

use std::path::Path;

use pgentra_system::Files;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut reading = Reading { path, text: &text, problems };
    for error in &errors {
        let line = error.span().map_or(1, |span| reading.line(span.start));
        reading.problems.add(format!("{}:{line}", path.display()), error.message());
    }
    // A part that could not be parsed would be reported again as missing or misspelled.
    if errors.is_empty() {
        reading.document(table.get_ref())
    } else {
        Written { lost_target: true, ..Written::default() }
    }
}

struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Problems,
}

impl Reading<'_> {
    fn document(&mut self, table: &DeTable<'_>) -> Written {
        let mut written = Written { lost_target: table.contains_key(TARGET), ..Written::default() };
        for (name, value) in in_order(table) {
            match (name.get_ref().as_ref(), value.get_ref()) {
                (TARGET, DeValue::Array(targets)) => {
                    for target in targets.iter() {
                        match target.get_ref() {
                            DeValue::Table(table) => {
                                written.targets.extend(self.target(table, target.span().start))
                            }
                            _ => self.wrong(name, "is a list of tables: write [[target]]"),
                        }
                    }
                }
                (TARGET, _) => self.wrong(name, "is a list of tables: write [[target]]"),
                (word, value) => match Key::find(word) {
                    Some(key) => written.layer.extend(self.said(key, name, value)),
                    None => self.unknown(name, &[TARGET]),
                },
            }
        }
        written
    }

    fn target(&mut self, table: &DeTable<'_>, start: usize) -> Option<WrittenTarget> {
        let mut server = None;
        let mut layer = Layer::default();
        for (name, value) in in_order(table) {
            match (name.get_ref().as_ref(), value.get_ref()) {
                (SERVER, DeValue::String(text)) => {
                    let line = self.line(name.span().start);
                    server = Some((text.to_string(), format!("{}:{line}", self.path.display())));
                }
                (SERVER, _) => {
                    self.wrong(name, "is a text: a connection URI or a conninfo string");
                    server = None;
                }
                (word, value) => match Key::find(word) {
                    Some(key) if key.is_targets() => layer.extend(self.said(key, name, value)),
                    Some(_) => {
                        self.wrong(name, "holds for the whole process: write it above the first [[target]]")
                    }
                    None => self.unknown(name, &[SERVER]),
                },
            }
        }
        if server.is_none() && !table.contains_key(SERVER) {
            let origin = format!("{}:{} [[{TARGET}]]", self.path.display(), self.line(start));
            self.problems.add(origin, format!("names no {SERVER}"));
        }
        let (server, place) = server?;
        Some(WrittenTarget { server, place, layer })
    }

    fn said(
        &mut self,
        key: &'static Key,
        name: &Spanned<impl AsRef<str>>,
        value: &DeValue<'_>,
    ) -> Option<Setting> {
        let values = match (key.form, value) {
            (Form::Number | Form::Time, DeValue::Integer(number)) if number.radix() == 10 => {
                Ok(vec![number.as_str().to_owned()])
            }
            // Whether the number is whole is checked when it is read.
            (Form::Number | Form::Time, DeValue::Float(number)) => Ok(vec![number.as_str().to_owned()]),
            (Form::Time, DeValue::String(text)) => Ok(vec![text.to_string()]),
            (Form::Number, _) => Err("is a number"),
            (Form::Time, _) => Err("is a time, such as \"5m\", or a number of seconds"),
            (Form::Switch, DeValue::Boolean(value)) => Ok(vec![value.to_string()]),
            (Form::Switch, _) => Err("is true or false"),
            (Form::Text | Form::List, DeValue::String(text)) => Ok(vec![text.to_string()]),
            (Form::Text, _) => Err("is a text"),
            (Form::List, DeValue::Array(values)) => values
                .iter()
                .map(|value| value.get_ref().as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or("is a list of texts"),
            (Form::List, _) => Err("is a list of texts"),
            (Form::Table, DeValue::Table(table)) => pairs(table),
            (Form::Table, _) => Err("is a table of texts"),
        };
        match values {
            Ok(values) => Some(Setting { key, values, origin: self.origin(name) }),
            Err(what) => {
                self.wrong(name, &format!("{what}, not a {}", value.type_str()));
                None
            }
        }
    }

    fn unknown(&mut self, name: &Spanned<impl AsRef<str>>, more: &[&'static str]) {
        let known = KEYS.iter().map(|key| key.name).chain(more.iter().copied());
        self.wrong(name, &format!("is no key{}", nearest(name.get_ref().as_ref(), known)));
    }

    fn wrong(&mut self, name: &Spanned<impl AsRef<str>>, what: &str) {
        let origin = self.origin(name);
        self.problems.add(origin, what);
    }

    fn origin(&self, name: &Spanned<impl AsRef<str>>) -> SettingOrigin {
        let line = self.line(name.span().start);
        SettingOrigin::File { path: self.path.to_owned(), line, key: name.get_ref().as_ref().to_owned() }
    }

    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A table in the form of a flag: `name=value` for each value.
fn pairs(table: &DeTable<'_>) -> Result<Vec<String>, &'static str> {
    const TEXTS: &str = "is a table whose values are texts, or lists of texts";
    let mut pairs = Vec::new();
    for (name, value) in in_order(table) {
        let values = match value.get_ref() {
            DeValue::String(text) => vec![&**text],
            DeValue::Array(values) => {
                values.iter().map(|value| value.get_ref().as_str()).collect::<Option<_>>().ok_or(TEXTS)?
            }
            _ => return Err(TEXTS),
        };
        for value in values {
            if value.contains('=') {
                return Err("is a table whose values have no `=`");
            }
            pairs.push(format!("{}={value}", name.get_ref()));
        }
    }
    Ok(pairs)
}

/// The entries in the order of the file: a table has its own order.
fn in_order<'a, 'b>(
    table: &'a DeTable<'b>,
) -> Vec<(&'a Spanned<std::borrow::Cow<'b, str>>, &'a Spanned<DeValue<'b>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
