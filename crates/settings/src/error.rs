//! What is wrong with a configuration, or why it cannot be applied.

use std::error::Error;
use std::fmt::{self, Display};

/// A configuration with problems, or one that cannot be applied on this machine.
///
/// All problems of a configuration are reported at once.
#[derive(Debug)]
pub struct SettingsError(Vec<ConfigProblem>);

/// One problem, and what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConfigProblem {
    /// What the problem is about.
    pub kind: ProblemKind,
    /// The setting, as the user wrote it: `/etc/pgentra.toml:3 listen`, `PGENTRA_PIN`, `--client-id` or
    /// `target 1 listen`. `None`: the problem is about no setting.
    pub origin: Option<String>,
    /// The problem with its causes. With an origin it continues a sentence that begins with it.
    pub message: String,
    /// The next step for the user.
    pub hint: Option<String>,
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A setting of the program.
    Setting,
    /// The server, role, database or TLS of a target.
    Connection,
    /// The identity of a target.
    Identity,
    /// This machine: an address or a file that cannot be opened. The same configuration may be applied later.
    Machine,
}

impl SettingsError {
    /// The problems, at least one. A problem without an origin is the only one.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.0
    }

    /// Whether the configuration itself is right, and only this machine lacks something.
    pub fn is_of_this_machine(&self) -> bool {
        self.0.iter().all(|problem| problem.kind == ProblemKind::Machine)
    }

    /// Adds hints to the problems that have none.
    #[must_use]
    pub fn with_hints(mut self, hint: impl Fn(&ConfigProblem) -> Option<String>) -> Self {
        for problem in self.0.iter_mut().filter(|problem| problem.hint.is_none()) {
            problem.hint = hint(problem);
        }
        self
    }

    /// An error that is about no setting.
    pub fn one(kind: ProblemKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(vec![ConfigProblem { kind, origin: None, message: message.into(), hint: Some(hint.into()) }])
    }
}

impl Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [ConfigProblem { origin: None, message, .. }] => return f.write_str(message),
            [_] => f.write_str("there is a problem with the configuration")?,
            several => write!(f, "there are {} problems with the configuration", several.len())?,
        }
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n    hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Error for SettingsError {}

/// Collects the problems of a configuration.
#[derive(Debug, Default)]
pub struct Problems(Vec<ConfigProblem>);

impl Problems {
    /// Adds a problem with a setting.
    pub fn add(&mut self, origin: impl Display, message: impl Display) {
        self.push(origin, (ProblemKind::Setting, message.to_string()), None);
    }

    /// Adds a problem with a hint.
    pub fn add_with_hint(&mut self, origin: impl Display, message: impl Display, hint: &str) {
        self.push(origin, (ProblemKind::Setting, message.to_string()), Some(hint.to_owned()));
    }

    /// `value`, if there are no problems.
    pub fn none_or<T>(self, value: T) -> Result<T, SettingsError> {
        if self.0.is_empty() { Ok(value) } else { Err(SettingsError(self.0)) }
    }

    /// Adds a problem of any kind.
    pub fn push(
        &mut self,
        origin: impl Display,
        (kind, message): (ProblemKind, String),
        hint: Option<String>,
    ) {
        self.0.push(ConfigProblem { kind, origin: Some(origin.to_string()), message, hint });
    }
}

/// An error with all its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
