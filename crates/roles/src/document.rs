//! TOML with every fault told, each with its line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Diagnostic;

/// A text being read, and what is wrong with it so far.
pub(crate) struct Reader<'i> {
    text: &'i str,
    pub(crate) faults: Vec<Diagnostic>,
}

/// A value and its line.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

/// A table whose keys are taken one by one.
pub(crate) struct Keys<'i> {
    table: DeTable<'i>,
    pub(crate) line: usize,
}

impl<'i> Reader<'i> {
    pub(crate) fn new(text: &'i str) -> Self {
        Self { text, faults: Vec::new() }
    }

    /// The document; what cannot be parsed is a fault each.
    pub(crate) fn document(&mut self) -> Keys<'i> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(span.start));
            self.fault(line, error.message().to_owned());
        }
        Keys { table: table.into_inner(), line: 1 }
    }

    pub(crate) fn fault(&mut self, line: usize, message: impl Into<String>) {
        self.faults.push(Diagnostic { line: Some(line), message: message.into() });
    }

    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

impl<'i> Keys<'i> {
    /// A text; not there, or no text, is `None`.
    pub(crate) fn text(&mut self, key: &str, reader: &mut Reader<'i>) -> Option<At<String>> {
        let (value, line) = self.take(key, reader)?;
        match value {
            DeValue::String(text) => Some(At { value: text.into_owned(), line }),
            _ => {
                reader.fault(line, format!("{key} is a text in quotes"));
                None
            }
        }
    }

    /// A flag; not there is false.
    pub(crate) fn flag(&mut self, key: &str, reader: &mut Reader<'i>) -> bool {
        match self.take(key, reader) {
            None => false,
            Some((DeValue::Boolean(flag), _)) => flag,
            Some((_, line)) => {
                reader.fault(line, format!("{key} is true or false"));
                false
            }
        }
    }

    /// A list of texts, or one text in its place.
    pub(crate) fn texts(&mut self, key: &str, reader: &mut Reader<'i>) -> Option<At<Vec<String>>> {
        let (value, line) = self.take(key, reader)?;
        let texts = match value {
            DeValue::String(text) => Some(vec![text.into_owned()]),
            DeValue::Array(items) => items
                .into_iter()
                .map(|item| match item.into_inner() {
                    DeValue::String(text) => Some(text.into_owned()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        if texts.is_none() {
            reader.fault(line, format!("{key} is a list of texts"));
        }
        texts.map(|value| At { value, line })
    }

    /// Tables under a key, as `[[key]]` makes them.
    pub(crate) fn tables(&mut self, key: &str, reader: &mut Reader<'i>) -> Vec<Keys<'i>> {
        let Some((value, line)) = self.take(key, reader) else { return Vec::new() };
        let mut tables = Vec::new();
        if let DeValue::Array(items) = value {
            for item in items {
                let line = reader.line(item.span().start);
                match item.into_inner() {
                    DeValue::Table(table) => tables.push(Keys { table, line }),
                    _ => reader.fault(line, format!("{key} is a table: write [[{key}]]")),
                }
            }
        } else {
            reader.fault(line, format!("{key} is a list of tables: write it with two brackets"));
        }
        tables
    }

    /// Whatever was not taken is not understood.
    pub(crate) fn end(self, what: &str, possible: &str, reader: &mut Reader<'i>) {
        for key in self.table.keys() {
            let line = reader.line(key.span().start);
            reader.fault(line, format!("{what} has no key `{}`; its keys are {possible}", key.get_ref()));
        }
    }

    fn take(&mut self, key: &str, reader: &Reader<'i>) -> Option<(DeValue<'i>, usize)> {
        let value: Spanned<DeValue<'i>> = self.table.remove(key)?;
        let line = reader.line(value.span().start);
        Some((value.into_inner(), line))
    }
}
