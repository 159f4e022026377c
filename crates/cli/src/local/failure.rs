//! The failures of a local cloud as problems.

use pgentra_local::{Error, Failure, FailureKind};

use crate::blame::Blame;
use crate::problem::Problem;

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
