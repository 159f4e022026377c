//! Collects all problems of a configuration, each with its origin.

use std::error::Error;
use std::fmt::{self, Display};

use crate::blame::Blame;
use crate::problem::Problem;

/// The problems of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Found>);

#[derive(Debug)]
struct Found {
    origin: String,
    message: String,
    hint: Option<String>,
}

impl Problems {
    pub(crate) fn add(&mut self, origin: impl Display, message: impl Display) {
        self.push(origin, message.to_string(), None);
    }

    /// Adds a problem with a hint.
    pub(crate) fn add_with_hint(&mut self, origin: impl Display, message: impl Display, hint: &str) {
        self.push(origin, message.to_string(), Some(hint.to_owned()));
    }

    /// Adds an invalid target or identity.
    pub(crate) fn add_problem(&mut self, origin: impl Display, problem: &Problem) {
        self.push(origin, problem.chain(), problem.hint_text().map(str::to_owned));
    }

    /// `value`, if there are no problems.
    pub(crate) fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Each problem in one line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|found| format!("{}: {}", found.origin, found.message))
    }

    fn push(&mut self, origin: impl Display, message: String, hint: Option<String>) {
        self.0.push(Found { origin: origin.to_string(), message, hint });
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("there is a problem with the configuration")?,
            number => write!(f, "there are {number} problems with the configuration")?,
        }
        for (line, found) in self.lines().zip(&self.0) {
            write!(f, "\n  {line}")?;
            if let Some(hint) = &found.hint {
                write!(f, "\n    hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl Error for Problems {}

impl From<Problems> for Problem {
    fn from(problems: Problems) -> Self {
        let has_hints = problems.0.iter().all(|found| found.hint.is_some());
        let problem = Self::new(Blame::Usage, problems);
        if has_hints { problem } else { problem.hint("what each key takes: pgentra proxy --help") }
    }
}
