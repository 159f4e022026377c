use std::error::Error;
use std::fmt;

/// Why a certificate, a key or a users file cannot be used. It repeats no secret.
#[derive(Debug)]
pub struct ClientAuthError {
    message: String,
    hint: &'static str,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl ClientAuthError {
    pub(crate) fn new(message: impl Into<String>, hint: &'static str) -> Self {
        Self { message: message.into(), hint, cause: None }
    }

    pub(crate) fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// How to correct the error, in a sentence for the operator.
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

impl fmt::Display for ClientAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ClientAuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}
