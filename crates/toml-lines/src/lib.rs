//! TOML for files that people write: every key and value knows its line, tables keep the order of the file, and all syntax
//! errors are reported at once. What the keys mean is the reader's to decide, and what is wrong with them.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parses a document. The table holds what could be parsed; each syntax error is a fault, in
/// the order of the file.
///
/// The length of `text` is the caller's to limit.
pub fn parse(text: &str) -> (Table, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let lines = Lines(text);
    let fault = |error: toml::de::Error| SyntaxError {
        line: error.span().map_or(1, |span| lines.at(span.start)),
        message: error.message().to_owned(),
    };
    let mut faults: Vec<_> = errors.into_iter().map(fault).collect();
    faults.sort_by_key(|fault| fault.line);
    (lines.table(1, table.into_inner()), faults)
}

/// A syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// The error in words, without the line.
    pub message: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The line where it begins, from 1.
    pub line: usize,
    /// Its entries, in the order of the file. No key is there twice.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, without quotes.
    pub key: String,
    /// The line of the key, from 1.
    pub line: usize,
    /// The value.
    pub value: At<Value>,
}

/// A value and its line.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// The line, from 1.
    pub line: usize,
    /// The value.
    pub value: T,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text, without quotes and escapes.
    Text(String),
    /// A decimal integer, as it is written, without underscores: it may be out of every range.
    Integer(String),
    /// A float, as it is written, without underscores.
    Float(String),
    /// `true` or `false`.
    Boolean(bool),
    /// `[…]`, or tables under `[[key]]`.
    Array(Vec<At<Value>>),
    /// `{…}`, or what follows `[key]`.
    Table(Table),
    /// A date, a time, or an integer that is not decimal; the name of the type.
    Other(&'static str),
}

impl Table {
    /// Removes and returns the entry of a key.
    pub fn take(&mut self, key: &str) -> Option<Entry> {
        let position = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(position))
    }

    /// Whether there is an entry of this key.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }
}

impl Value {
    /// The name of the type in TOML's words.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Integer(_) => "integer",
            Self::Float(_) => "float",
            Self::Boolean(_) => "boolean",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
            Self::Other(name) => name,
        }
    }

    /// The texts of an array of texts, or one text in its place; `None` for anything else.
    pub fn into_texts(self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => Some(vec![text]),
            Self::Array(items) => {
                let text = |item: At<Value>| match item.value {
                    Value::Text(text) => Some(text),
                    _ => None,
                };
                items.into_iter().map(text).collect()
            }
            _ => None,
        }
    }
}

/// The text, to find lines in.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line of a byte.
    fn at(self, offset: usize) -> usize {
        self.0.as_bytes()[..offset.min(self.0.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn table(self, line: usize, table: DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| Entry {
            line: self.at(key.span().start),
            key: key.into_inner().into_owned(),
            value: self.value(value),
        };
        Table { line, entries: entries.into_iter().map(entry).collect() }
    }

    fn value(self, value: Spanned<DeValue<'_>>) -> At<Value> {
        let line = self.at(value.span().start);
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) if number.radix() == 10 => Value::Integer(number.as_str().to_owned()),
            DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Array(items) => Value::Array(items.into_iter().map(|item| self.value(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(line, table)),
            other => Value::Other(other.type_str()),
        };
        At { line, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_has_its_line() {
        let (mut table, faults) = parse(
            "b = 1_000\na = 0x10\n\n[[t]]\nx = [\n  'one',\n  'two',\n]\n[[t]]\n[t.y]\nz = 1979-05-27\n[u]\n'q.r' = 1.5\n",
        );
        assert_eq!(faults, []);
        let keys: Vec<_> = table.entries.iter().map(|entry| (&*entry.key, entry.line)).collect();
        assert_eq!(keys, [("b", 1), ("a", 2), ("t", 4), ("u", 12)]);
        assert_eq!(table.take("b").unwrap().value, At { line: 1, value: Value::Integer("1000".to_owned()) });
        assert!(table.take("b").is_none() && !table.has("b") && table.has("a"));
        let other = table.take("a").unwrap().value.value;
        assert_eq!((other.type_name(), other), ("integer", Value::Other("integer")));
        let Value::Array(items) = table.take("t").unwrap().value.value else { panic!() };
        let [Value::Table(first), Value::Table(second)] = [&items[0].value, &items[1].value] else {
            panic!()
        };
        assert_eq!((first.line, second.line), (4, 9));
        let list = &first.entries[0].value;
        assert_eq!(list.value.clone().into_texts(), Some(vec!["one".to_owned(), "two".to_owned()]));
        let Value::Array(texts) = &list.value else { panic!() };
        assert_eq!(texts.iter().map(|text| text.line).collect::<Vec<_>>(), [6, 7]);
        let Value::Table(inner) = &second.entries[0].value.value else { panic!() };
        assert_eq!(inner.entries[0].value.value.type_name(), "datetime");
        let Value::Table(last) = &table.entries[0].value.value else { panic!() };
        assert_eq!((&*last.entries[0].key, last.entries[0].line), ("q.r", 13));
        assert_eq!(last.entries[0].value.value.clone().into_texts(), None);
    }

    #[test]
    fn all_syntax_errors_are_reported() {
        let (table, faults) = parse("a = \n\nb = = 1\nc = true\nc = false\n");
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 3, 3, 5], "{faults:?}");
        assert!(table.has("c") && faults.iter().all(|fault| !fault.message.is_empty()));
    }
}
