//! What is wrong with a file of roles.

use std::fmt;

/// Everything that is wrong with a file, or that does not fit the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    faults: Vec<Diagnostic>,
    hint: Option<&'static str>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The line of the file; `None` where there is no file.
    pub line: Option<usize>,
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
        Self::of(vec![Diagnostic { line: None, message: message.into() }])
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
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
