//! The one place where a failure becomes words and an exit code: `error:`, `caused by:`, `hint:`.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use pgentra_connect::{ConnectError, ConnectErrorKind};
use pgentra_identity::{ConfigError, TokenError, TokenErrorKind};

/// Who is to blame, as the exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A fault of ours, or of this machine.
    Ours = 1,
    /// Usage or configuration.
    Usage = 2,
    /// No token could be had.
    Token = 3,
    /// Network or TLS.
    Network = 4,
    /// The server refused.
    Server = 5,
}

/// A failure, ready to be shown to a person.
#[derive(Debug)]
pub(crate) struct Problem {
    blame: Blame,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Problem>;

impl Problem {
    /// A failure with its blame.
    pub(crate) fn new(blame: Blame, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { blame, error: error.into(), hint: None }
    }

    /// A failure of this machine or of ours, with what was being done.
    pub(crate) fn ours(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Blame::Ours, Doing { doing, source: source.into() })
    }

    /// The next thing to try.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The failure with all its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    /// The next thing to try, if there is one.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Who is to blame.
    pub(crate) fn blame(&self) -> Blame {
        self.blame
    }

    /// The exit code that says who is to blame.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.blame as u8)
    }

    /// Prints `error:`, every `caused by:` and the `hint:`.
    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (red, bold, plain) = ("\x1b[1;31m", "\x1b[1m", "\x1b[0m");
        writeln!(out, "{red}error:{plain} {}", self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            writeln!(out, "{bold}caused by:{plain} {error}")?;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            writeln!(out, "{bold}hint:{plain} {hint}")?;
        }
        Ok(())
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let blame = match error.kind() {
            TokenErrorKind::Config => Blame::Usage,
            _ => Blame::Token,
        };
        let hint = error.hint();
        Self { blame, error: error.into(), hint }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new(Blame::Usage, error)
    }
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        let blame = match error.kind() {
            ConnectErrorKind::Config => Blame::Usage,
            ConnectErrorKind::Token => Blame::Token,
            ConnectErrorKind::Refused(_) => Blame::Server,
            _ => Blame::Network,
        };
        let hint = error.hint();
        Self { blame, error: error.into(), hint }
    }
}

/// What was being done when something else went wrong.
#[derive(Debug)]
struct Doing {
    doing: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.doing)
    }
}

impl Error for Doing {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once_per_level() {
        let problem = Problem::ours("cannot start the local cloud", std::io::Error::other("disk full"))
            .hint("free some space");
        let mut out = Vec::new();
        problem.print(&mut out).unwrap();
        let mut text = anstream::StripStream::new(Vec::new());
        text.write_all(&out).unwrap();
        let text = String::from_utf8(text.into_inner()).unwrap();
        assert_eq!(
            text,
            "error: cannot start the local cloud\ncaused by: disk full\nhint: free some space\n"
        );
        assert_eq!(problem.exit_code(), ExitCode::from(1));
    }
}
