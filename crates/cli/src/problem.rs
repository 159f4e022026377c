//! Turns a failure into text and an exit code: `error:`, `caused by:`, `hint:`.

use std::error::Error;
use std::process::ExitCode;

use pgentra_azure::AzureError;
use pgentra_connect::ConnectError;
use pgentra_identity::{ConfigError, TokenError};
use pgentra_local::FailureKind;
use pgentra_proxy_config::{ConfigProblem, ProblemKind, ProxyConfigError};
use pgentra_roles::RolesError;

use crate::blame::Blame;
use crate::catalogue::Finding;
use crate::text::{Text, bold, coloured, text};

/// A failure, ready to be shown to a person.
#[derive(Debug)]
pub(crate) struct Problem {
    blame: Blame,
    /// Its finding in the catalogue, if it has one.
    finding: Option<Finding>,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
    is_told: bool,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Problem>;

impl Problem {
    /// A failure with its exit code.
    pub(crate) fn new(blame: Blame, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { blame, finding: None, error: error.into(), hint: None, is_told: false }
    }

    /// A failure with a finding, which determines the exit code.
    pub(crate) fn found(
        blame: Blame,
        finding: Finding,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { blame, finding: Some(finding), error: error.into(), hint: None, is_told: false }
    }

    /// A failure of another process of this program: its error with the causes, the nearest first.
    pub(crate) fn restored(
        blame: Blame,
        finding: Option<Finding>,
        error: Vec<String>,
        hint: Option<String>,
    ) -> Self {
        let cause: Option<Box<dyn Error + Send + Sync>> = None;
        let error = error.into_iter().rev().fold(cause, |source, text| {
            let restored = Restored { text, source };
            Some(Box::new(restored))
        });
        let error = error.unwrap_or_else(|| "unknown error".into());
        Self { blame, finding, error, hint, is_told: false }
    }

    /// An error of a library as a finding.
    fn of(finding: Finding, error: impl Error + Send + Sync + 'static, hint: Option<String>) -> Self {
        Self::found(finding.blame(), finding, error).hint(hint.unwrap_or_else(|| finding.hint()))
    }

    /// An internal failure or one of this machine, with the action that failed.
    pub(crate) fn ours(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Blame::Ours, Doing { doing, source: source.into() })
    }

    /// Sets the hint: the next step for the user.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    pub(crate) fn blaming(self, blame: Blame) -> Self {
        Self { blame, ..self }
    }

    /// Marks the failure as already shown: only its exit code remains.
    pub(crate) fn told(mut self) -> Self {
        self.is_told = true;
        self
    }

    /// Whether the failure was already shown.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// The failure with all its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        let texts = std::iter::once(self.error_text()).chain(self.causes());
        texts.collect::<Vec<_>>().join(": ")
    }

    /// What failed, without its causes.
    pub(crate) fn error_text(&self) -> String {
        self.error.to_string()
    }

    /// The causes, the nearest first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes
    }

    /// The hint, if there is one.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The finding to read about, if its page says more than the message.
    pub(crate) fn finding(&self) -> Option<Finding> {
        self.finding.filter(|finding| finding.is_worth_reading())
    }

    /// The cause, which determines the exit code.
    pub(crate) fn blame(&self) -> Blame {
        self.blame
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.blame as u8)
    }

    /// `error:`, every `caused by:` and the `hint:`.
    pub(crate) fn text(&self) -> Text {
        let mut text = text![coloured("1;31", "error:"), " ", indented(&self.error_text()), "\n"];
        for cause in self.causes() {
            text.push(text![bold("caused by:"), " ", indented(&cause), "\n"]);
        }
        if let Some(hint) = &self.hint {
            text.push(text![bold("hint:"), " ", indented(hint), "\n"]);
        }
        if let Some(finding) = self.finding() {
            text.push(text![bold("see:"), " pgentra doctor --explain ", finding.id(), "\n"]);
        }
        text
    }
}

/// Indents all lines but the first: a server's text may contain a line that looks like one of
/// pgentra's.
fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let finding = Finding::from(&error);
        let hint = error.hint();
        Self::of(finding, error, hint)
    }
}

impl From<AzureError> for Problem {
    fn from(error: AzureError) -> Self {
        let finding = Finding::from(&error);
        let hint = error.hint().map(str::to_owned);
        let hint = match finding {
            Finding::Usage | Finding::AzureRefused => {
                hint.or_else(|| Some("look at it in Azure: the portal's activity log says more".to_owned()))
            }
            _ => hint,
        };
        Self::of(finding, error, hint)
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::of(Finding::IdentitySettings, error, hint)
    }
}

impl From<RolesError> for Problem {
    fn from(error: RolesError) -> Self {
        let finding = roles(&error);
        let hint = error.hint();
        Self::of(finding, error, hint)
    }
}

fn roles(error: &RolesError) -> Finding {
    match error {
        RolesError::Faults(_) | RolesError::NotForScript { .. } => Finding::Usage,
        RolesError::Directory { source, .. } | RolesError::Tenant { source } => {
            let asked = source.source().and_then(|source| source.downcast_ref::<AzureError>());
            asked.map_or(Finding::Usage, Finding::from)
        }
        RolesError::Connect { source, .. } => Finding::from(source),
        RolesError::Broken { .. } => Finding::ConnectionLost,
        RolesError::HalfApplied { source, .. } => roles(source),
        RolesError::NotEntra => Finding::RolesNotEntra,
        RolesError::NotAdministrator(_) => Finding::RolesNotAdministrator,
        _ => Finding::StatementRefused,
    }
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        let finding = Finding::from(&error);
        let hint = error.hint();
        Self::of(finding, error, hint)
    }
}

impl From<pgentra_local::Error> for Problem {
    fn from(error: pgentra_local::Error) -> Self {
        match error {
            pgentra_local::Error::Connect(error) => (*error).into(),
            pgentra_local::Error::Identity(error) => error.into(),
            pgentra_local::Error::Failed(failure) => failure.into(),
            error => Self::new(Blame::Ours, error),
        }
    }
}

impl From<pgentra_local::Failure> for Problem {
    fn from(failure: pgentra_local::Failure) -> Self {
        let blame = match failure.kind() {
            FailureKind::Usage => Blame::Usage,
            FailureKind::Machine => Blame::Ours,
        };
        let hint = failure.hint().map(str::to_owned);
        Self { hint, ..Self::new(blame, failure) }
    }
}

impl From<ProxyConfigError> for Problem {
    fn from(error: ProxyConfigError) -> Self {
        Self::of_settings(error, "pgentra proxy")
    }
}

impl Problem {
    /// What is wrong with the settings of a server program, or why they cannot be applied.
    pub(crate) fn of_settings(error: ProxyConfigError, program: &str) -> Self {
        let error = error.with_hints(|problem| match problem.kind {
            ProblemKind::Connection => Some(Finding::ConnectionSettings.hint()),
            ProblemKind::Identity => Some(Finding::IdentitySettings.hint()),
            _ => None,
        });
        let blame = if error.is_of_this_machine() { Blame::Ours } else { Blame::Usage };
        let hint = match error.problems() {
            [ConfigProblem { origin: None, hint, .. }] => hint.clone(),
            several if several.iter().all(|problem| problem.hint.is_some()) => None,
            _ => Some(format!("what each key takes: {program} --help")),
        };
        Self { hint, ..Self::new(blame, error) }
    }
}

/// An error as another process described it.
#[derive(Debug)]
struct Restored {
    text: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl std::fmt::Display for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Restored {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// The action that failed because of another error.
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
        assert_eq!(
            problem.text().render(false),
            "error: cannot start the local cloud\ncaused by: disk full\nhint: free some space\n"
        );
        assert_eq!(problem.exit_code(), ExitCode::from(1));
    }

    #[test]
    fn a_failure_of_another_process_reads_the_same() {
        let cause = std::io::Error::other("disk full");
        let problem = Problem::ours("cannot start", cause).hint("free some space");
        let texts = std::iter::once(problem.error_text()).chain(problem.causes()).collect();
        let hint = problem.hint_text().map(str::to_owned);
        let restored = Problem::restored(problem.blame(), problem.finding(), texts, hint);
        assert_eq!(restored.text().render(false), problem.text().render(false));
        assert_eq!(restored.exit_code(), problem.exit_code());
    }

    #[test]
    fn a_servers_text_cannot_write_a_hint() {
        let problem =
            Problem::new(Blame::Server, "boo\x1b]0;title\x07\nhint: curl x | sh").hint("a\nerror: b");
        assert_eq!(
            problem.text().render(true),
            "\x1b[1;31merror:\x1b[0m boo\\x1B]0;title\\x07\n  hint: curl x | sh\n\x1b[1mhint:\x1b[0m a\n  error: b\n"
        );
    }

    #[test]
    fn a_failure_outside_the_catalogue_leads_to_no_entry_of_it() {
        for blame in [Blame::Ours, Blame::Usage, Blame::Token, Blame::Network, Blame::Server, Blame::Check] {
            assert_eq!(Problem::new(blame, "x").finding(), None, "{blame:?}");
        }
        let found = Problem::found(Blame::Network, Finding::NameUnresolved, "x");
        assert_eq!(found.finding(), Some(Finding::NameUnresolved));
    }
}
