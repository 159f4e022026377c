//! Why a local cloud could not be started, used or reached.

use std::error::Error as StdError;

use pgentra_connect::ConnectError;
use pgentra_identity::ConfigError;
use serde::{Deserialize, Serialize};

/// A failure of a local cloud.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program on a host of the cloud could not sign in to its PostgreSQL.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// The environment of a host does not describe one identity.
    #[error(transparent)]
    Identity(#[from] ConfigError),
    /// Everything else.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Whether the caller or this machine has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The options do not suit this machine.
    Usage,
    /// This machine, or a fault of this crate.
    Machine,
}

/// A failure with its cause and the next step.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: FailureKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

impl Failure {
    /// Whether the caller or this machine has to change.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The next step for the user, if one is known. It names options of `pgentra local up`.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, hint: None }
    }

    /// A failure of this machine, with the action that failed.
    pub(crate) fn machine(doing: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::new(FailureKind::Machine, doing) }
    }

    /// The message with its causes.
    pub(crate) fn words(&self) -> String {
        let first: Option<&dyn StdError> = self.source();
        let causes = std::iter::successors(first, |error| (*error).source());
        std::iter::once(self.message.clone())
            .chain(causes.map(ToString::to_string))
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// A failure of the caller's options, with its cause.
    pub(crate) fn usage(message: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::new(FailureKind::Usage, message) }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A failure as another process tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToldFailure {
    is_usage: bool,
    message: String,
    hint: Option<String>,
}

impl From<&Failure> for ToldFailure {
    fn from(failure: &Failure) -> Self {
        let mut message = failure.message.clone();
        let mut cause = failure.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self { is_usage: failure.kind == FailureKind::Usage, message, hint: failure.hint.clone() }
    }
}

impl From<ToldFailure> for Failure {
    fn from(told: ToldFailure) -> Self {
        let kind = if told.is_usage { FailureKind::Usage } else { FailureKind::Machine };
        Self { hint: told.hint, ..Self::new(kind, told.message) }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}
