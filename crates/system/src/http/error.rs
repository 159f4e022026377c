use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why there is no whole answer to an HTTP request. Cheap to clone; never contains a header's value or a body.
#[derive(Debug, Clone)]
pub struct HttpError {
    kind: HttpErrorKind,
    message: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of failure an [`HttpError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpErrorKind {
    /// The URL, a header or a proxy setting cannot be used.
    Unusable,
    /// The host's name has no address.
    Resolve,
    /// No connection: refused, unreachable, or not accepted in time.
    Connect,
    /// Connected, but no whole answer in time.
    Timeout,
    /// TLS failed: certificate, name or protocol.
    Tls,
    /// The proxy refused to connect us.
    Proxy,
    /// The answer is longer than the limit.
    TooLarge,
    /// The answer is not HTTP, or ended early.
    Protocol,
}

impl HttpError {
    /// What kind of failure this is.
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: HttpErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    pub(crate) fn unusable(message: impl Into<String>) -> Self {
        Self::new(HttpErrorKind::Unusable, message)
    }

    pub(crate) fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }

    pub(crate) fn caused_by_boxed(self, cause: Box<dyn Error + Send + Sync>) -> Self {
        Self { cause: Some(Arc::from(cause)), ..self }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
