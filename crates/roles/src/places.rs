//! Places in a document, for messages.

use std::sync::Arc;

/// What the numbers of lines stand for. A document of JSON has no lines: its values are counted, and the number leads to the
/// path of the value. A file has no paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DocumentPlaces {
    paths: Arc<[String]>,
}

impl DocumentPlaces {
    /// The paths of values, by their numbers.
    pub(crate) fn of(paths: Vec<String>) -> Self {
        Self { paths: paths.into() }
    }

    /// The path of a value.
    pub(crate) fn path(&self, line: usize) -> Option<&str> {
        self.paths.get(line).map(String::as_str)
    }

    /// A place in a message.
    pub(crate) fn name(&self, line: usize) -> String {
        self.path(line).map_or_else(|| format!("line {line}"), str::to_owned)
    }
}
