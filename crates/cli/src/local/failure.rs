//! The failures of a local cloud as problems.

use pgentra_local::{Error, Failure, FailureKind};

use super::command_line::command;
use crate::blame::Blame;
use crate::problem::Problem;

/// The problem that no local cloud of this name runs.
pub(super) fn none_runs(name: &str) -> Problem {
    Problem::new(Blame::Usage, format!("no local cloud `{name}` runs"))
        .hint(format!("start one: {} --detach", command("up", name)))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Connect(error) => (*error).into(),
            Error::Identity(error) => error.into(),
            Error::Failed(failure) => failure.into(),
            error => Self::new(Blame::Ours, error),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let blame = match failure.kind() {
            FailureKind::Usage => Blame::Usage,
            FailureKind::Machine => Blame::Ours,
        };
        let hint = failure.hint().map(str::to_owned);
        let problem = Self::new(blame, failure);
        match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}
