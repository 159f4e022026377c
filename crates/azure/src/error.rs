use std::error::Error;
use std::fmt;

use pgentra_identity::TokenError;
use pgentra_system::http::HttpError;

/// Why Resource Manager or Graph did not do what was asked.
///
/// `Display` says what could not be done and why; what lies below is in `source()`, what to do next in
/// [`AzureError::hint`]. Texts of the services are shortened, and redacted where they look like a token.
#[derive(Debug)]
pub struct AzureError {
    kind: AzureErrorKind,
    message: String,
    code: Option<String>,
    hint: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure an [`AzureError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AzureErrorKind {
    /// No token for the service.
    Token,
    /// The service could not be reached, or not understood.
    Network,
    /// The request is invalid: for example, a name has characters that cannot be sent.
    Usage,
    /// The resource or principal does not exist, or the caller may not see it.
    NotFound,
    /// Several resources or principals have the name.
    Ambiguous,
    /// The caller has no role that allows it.
    Forbidden,
    /// Another operation is changing the same resource.
    Conflict,
    /// Too many requests, for longer than we wait.
    Throttled,
    /// The operation goes on at Azure for longer than we wait.
    StillRunning,
    /// Any other refusal of the service.
    Refused,
}

impl AzureErrorKind {
    /// All variants, for tables in documents and tests.
    pub const ALL: [AzureErrorKind; 10] = [
        AzureErrorKind::Token,
        AzureErrorKind::Network,
        AzureErrorKind::Usage,
        AzureErrorKind::NotFound,
        AzureErrorKind::Ambiguous,
        AzureErrorKind::Forbidden,
        AzureErrorKind::Conflict,
        AzureErrorKind::Throttled,
        AzureErrorKind::StillRunning,
        AzureErrorKind::Refused,
    ];
}

impl AzureError {
    /// What kind of failure this is.
    pub fn kind(&self) -> AzureErrorKind {
        self.kind
    }

    /// The service's own error code, such as `AuthorizationFailed`.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The next thing to try, in words.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn new(kind: AzureErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, hint: None, cause: None }
    }

    pub(crate) fn with_code(mut self, code: impl Into<Option<String>>) -> Self {
        self.code = code.into();
        self
    }

    pub(crate) fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    pub(crate) fn of_token(doing: &str, error: TokenError) -> Self {
        let hint = error.hint();
        let mut new = Self::new(AzureErrorKind::Token, format!("cannot {doing}")).caused_by(error);
        new.hint = hint;
        new
    }

    pub(crate) fn of_http(doing: &str, error: HttpError) -> Self {
        Self::new(AzureErrorKind::Network, format!("cannot {doing}")).caused_by(error)
    }
}

impl fmt::Display for AzureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for AzureError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new kind does not compile here before it has a number, nor pass before it is listed.
    #[test]
    fn every_kind_is_listed() {
        let numbers = AzureErrorKind::ALL.map(|kind| match kind {
            AzureErrorKind::Token => 0,
            AzureErrorKind::Network => 1,
            AzureErrorKind::Usage => 2,
            AzureErrorKind::NotFound => 3,
            AzureErrorKind::Ambiguous => 4,
            AzureErrorKind::Forbidden => 5,
            AzureErrorKind::Conflict => 6,
            AzureErrorKind::Throttled => 7,
            AzureErrorKind::StillRunning => 8,
            AzureErrorKind::Refused => 9,
        });
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
