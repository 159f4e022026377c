//! What is wrong with a file of roles.

use std::fmt;

use super::places::DocumentPlaces;

/// Everything that is wrong with a file, or that does not fit the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    faults: Vec<Diagnostic>,
    hint: Option<&'static str>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostic {
    /// The line of the file; `None` where there is no file, and in a document that has no lines.
    pub line: Option<usize>,
    /// Where it is in a document of JSON, such as `role[1].grant[0]`; `None` in a file.
    pub path: Option<String>,
    /// The fault in words, without the line number.
    pub message: String,
}

impl Diagnostics {
    pub(crate) fn of(mut faults: Vec<Diagnostic>) -> Self {
        faults.sort_by_key(|fault| fault.line);
        Self { faults, hint: None }
    }

    pub(crate) fn hinting(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// One fault, where there is no file.
    pub(crate) fn one(message: impl Into<String>) -> Self {
        Self::of(vec![Diagnostic { message: message.into(), ..Diagnostic::default() }])
    }

    /// Gives each the place in the document that it is from.
    pub(crate) fn placed(mut self, places: &DocumentPlaces) -> Self {
        for fault in &mut self.faults {
            if let Some(path) = fault.line.and_then(|line| places.path(line)) {
                *fault =
                    Diagnostic { line: None, path: Some(path.to_owned()), message: fault.message.clone() };
            }
        }
        self
    }

    /// All of them, by line.
    pub fn all(&self) -> &[Diagnostic] {
        &self.faults
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.faults {
            [only] => write!(f, "{only}"),
            several => {
                write!(f, "{} things are wrong", several.len())?;
                several.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.line) {
            (Some(path), _) if path.is_empty() => f.write_str(&self.message),
            (Some(path), _) => write!(f, "{path}: {}", self.message),
            (None, Some(line)) => write!(f, "line {line}: {}", self.message),
            (None, None) => f.write_str(&self.message),
        }
    }
}
