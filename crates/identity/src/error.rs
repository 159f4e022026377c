use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::{Reason, SourceName};

/// Why there is no token.
///
/// Cheap to clone, because many callers may wait for one request. `Display` is what failed and where; the cause is in
/// `source()`; what to do next is in [`TokenError::hint`]. None of them ever contains a secret: what a peer
/// sent is shortened, and redacted where it looks like a token or repeats a secret of the request.
#[derive(Debug, Clone)]
pub struct TokenError(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: TokenErrorKind,
    message: String,
    source_name: Option<SourceName>,
    endpoint: Option<String>,
    attempts: u32,
    hint: Option<String>,
    code: Option<String>,
    reasons: Vec<(SourceName, Reason)>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of failure a [`TokenError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// No source applies on this host.
    NoSource,
    /// The source could not be reached: name, route, connection, TLS or a cut connection.
    Network,
    /// The source was reached, or might have been, and gave no answer in time.
    Timeout,
    /// The source answered, and refused.
    Refused {
        /// The HTTP status; 0 where the source is not an HTTP service.
        status: u16,
    },
    /// The source answered with something that is not a usable token.
    BadAnswer,
    /// The source gave a token for another resource, by the token's claims or by the source's response.
    Audience,
    /// The source gave a token that has ended already, by this machine's clock.
    Expired,
    /// What the source needs on this machine (a variable, a file, a program) is missing or wrong.
    Config,
    /// The request was abandoned, because the runtime it ran on was shut down or it panicked.
    Abandoned,
}

impl TokenErrorKind {
    /// Every kind there is; a refusal stands for all statuses.
    pub const ALL: [TokenErrorKind; 9] = [
        TokenErrorKind::NoSource,
        TokenErrorKind::Network,
        TokenErrorKind::Timeout,
        TokenErrorKind::Refused { status: 0 },
        TokenErrorKind::BadAnswer,
        TokenErrorKind::Audience,
        TokenErrorKind::Expired,
        TokenErrorKind::Config,
        TokenErrorKind::Abandoned,
    ];
}

impl TokenError {
    /// What kind of failure this is.
    pub fn kind(&self) -> TokenErrorKind {
        self.0.kind
    }

    /// The source that failed; `None` if no source applied.
    pub fn source_name(&self) -> Option<SourceName> {
        self.0.source_name
    }

    /// The address that was asked, without its query.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            TokenErrorKind::Refused { status } if status != 0 => Some(status),
            _ => None,
        }
    }

    /// The peer's own error code, such as `invalid_request` or `AADSTS70021`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// How many requests were made before giving up; 0 where none could be made.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The next thing to try, in words.
    pub fn hint(&self) -> Option<String> {
        self.0.hint.clone()
    }

    /// The sources that were considered before and why they did not apply.
    pub fn reasons(&self) -> &[(SourceName, Reason)] {
        &self.0.reasons
    }

    pub(crate) fn new(kind: TokenErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source_name: None,
            endpoint: None,
            attempts: 0,
            hint: None,
            code: None,
            reasons: Vec::new(),
            cause: None,
        }))
    }

    /// What failed, without the source's name.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    pub(crate) fn config(source: SourceName, message: impl Into<String>) -> Self {
        Self::new(TokenErrorKind::Config, message).at(source)
    }

    pub(crate) fn bad_answer(source: SourceName, message: impl Into<String>) -> Self {
        Self::new(TokenErrorKind::BadAnswer, message).at(source)
    }

    pub(crate) fn expired(source: SourceName, message: impl Into<String>) -> Self {
        Self::new(TokenErrorKind::Expired, message).at(source)
    }

    pub(crate) fn at(self, source: SourceName) -> Self {
        self.change(|inner| inner.source_name = Some(source))
    }

    pub(crate) fn endpoint_is(self, endpoint: impl Into<String>) -> Self {
        self.change(|inner| inner.endpoint = Some(endpoint.into()))
    }

    pub(crate) fn after(self, attempts: u32) -> Self {
        self.change(|inner| inner.attempts = attempts)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        self.change(|inner| inner.hint = Some(hint.into()))
    }

    pub(crate) fn with_code(self, code: impl Into<String>) -> Self {
        self.change(|inner| inner.code = Some(code.into()))
    }

    pub(crate) fn with_reasons(self, reasons: Vec<(SourceName, Reason)>) -> Self {
        self.change(|inner| inner.reasons = reasons)
    }

    pub(crate) fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.cause = Some(Arc::new(cause)))
    }

    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(source) = inner.source_name {
            write!(f, "no token from {source}")?;
            if let Some(endpoint) = &inner.endpoint {
                write!(f, " at {endpoint}")?;
            }
            write!(f, ": ")?;
        }
        f.write_str(&inner.message)?;
        if inner.attempts > 1 {
            write!(f, " ({} attempts)", inner.attempts)?;
        }
        Ok(())
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

/// A credential that cannot be built: something in the configuration or the environment contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    /// The next thing to try, in words.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new kind does not compile here before it has a number, nor pass before it is listed.
    #[test]
    fn every_kind_is_listed() {
        let numbers = TokenErrorKind::ALL.map(|kind| match kind {
            TokenErrorKind::NoSource => 0,
            TokenErrorKind::Network => 1,
            TokenErrorKind::Timeout => 2,
            TokenErrorKind::Refused { .. } => 3,
            TokenErrorKind::BadAnswer => 4,
            TokenErrorKind::Audience => 5,
            TokenErrorKind::Expired => 6,
            TokenErrorKind::Config => 7,
            TokenErrorKind::Abandoned => 8,
        });
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
