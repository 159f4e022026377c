//! Why there is no connection.

use std::error::Error;
use std::fmt;

use pgentra_identity::TokenError;

use crate::refusal::{Refusal, ServerMessage};

/// Why there is no connection.
///
/// `Display` says what failed and where, in one line; what lies below it is in `source()`; what to do next is in
/// [`ConnectError::hint`]. None of them contains the token, not even where the server sends it back.
pub struct ConnectError(Box<Inner>);

struct Inner {
    kind: ConnectErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
    server: Option<ServerMessage>,
    same_token_came_back: bool,
}

/// Which link of the chain broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The settings are invalid, incomplete, or not allowed. No connection was opened.
    Config,
    /// There is no token; the source is a [`TokenError`].
    Token,
    /// The name of the server has no address.
    Dns,
    /// No address of the server could be reached.
    Tcp,
    /// The server did not answer within the time that [`Target::connect_timeout`](crate::Target::connect_timeout)
    /// allows.
    Timeout,
    /// No verified TLS. The token was not sent.
    Tls(TlsFailure),
    /// The server refused the sign-in.
    Refused(Refusal),
    /// The server does not follow the protocol, or hung up in the middle of it.
    Protocol,
}

/// Why there is no verified TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The server answered `N`: it has no TLS.
    Declined,
    /// The server answered the request for TLS with an error, in the clear. It is not shown: an attacker on the network
    /// may have written it (CVE-2024-10977).
    ErrorInTheClear,
    /// The peer does not speak TLS, or is not PostgreSQL.
    NotTls,
    /// The certificate is for another name.
    Name,
    /// The certificate is not signed by a trusted authority.
    UnknownIssuer,
    /// The certificate has expired, or is not valid yet, by this machine's clock.
    Validity,
    /// The certificate has another fault.
    Certificate,
    /// The server ended the handshake, or spoke no version or protocol that we do.
    Handshake,
}

impl ConnectErrorKind {
    /// Every kind there is, in the order of the chain.
    pub fn all() -> impl Iterator<Item = ConnectErrorKind> {
        use ConnectErrorKind::{Config, Dns, Protocol, Tcp, Timeout, Tls, Token};
        let before = [Config, Token, Dns, Tcp, Timeout].into_iter();
        let tls = TlsFailure::ALL.into_iter().map(Tls);
        let refused = Refusal::ALL.into_iter().map(ConnectErrorKind::Refused);
        before.chain(tls).chain(refused).chain([Protocol])
    }
}

impl TlsFailure {
    /// All variants, for tables in documents and tests.
    pub const ALL: [TlsFailure; 8] = [
        TlsFailure::Declined,
        TlsFailure::ErrorInTheClear,
        TlsFailure::NotTls,
        TlsFailure::Name,
        TlsFailure::UnknownIssuer,
        TlsFailure::Validity,
        TlsFailure::Certificate,
        TlsFailure::Handshake,
    ];
}

impl ConnectError {
    /// Which link of the chain broke.
    pub fn kind(&self) -> ConnectErrorKind {
        self.0.kind
    }

    /// The next thing to try, in words.
    pub fn hint(&self) -> Option<String> {
        let of_cause = || self.0.source.as_ref()?.downcast_ref::<ConnectError>()?.hint();
        self.0.hint.clone().or_else(|| self.token_error()?.hint()).or_else(of_cause)
    }

    /// Why there is no token, if that is it.
    pub fn token_error(&self) -> Option<&TokenError> {
        self.0.source.as_ref()?.downcast_ref()
    }

    /// The server's ErrorResponse, if it refused the sign-in.
    pub fn server_message(&self) -> Option<&ServerMessage> {
        self.0.server.as_ref()
    }

    /// A newer token was asked for after the refusal, and the token source gave the same one again: asking once more
    /// does not help before it has expired.
    pub fn same_token_came_back(&self) -> bool {
        self.0.same_token_came_back
    }

    pub(crate) fn new(kind: ConnectErrorKind, message: impl Into<String>) -> ConnectError {
        ConnectError(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            source: None,
            server: None,
            same_token_came_back: false,
        }))
    }

    pub(crate) fn config(message: impl Into<String>) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Config, message)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Protocol, message)
    }

    pub(crate) fn token(error: TokenError) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Token, "no access token for the sign-in").because(error)
    }

    pub(crate) fn refused(refusal: Refusal, message: impl Into<String>) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Refused(refusal), message)
    }

    #[must_use]
    pub(crate) fn hinting(mut self, hint: impl Into<String>) -> ConnectError {
        self.0.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> ConnectError {
        self.0.source = Some(source.into());
        self
    }

    #[must_use]
    pub(crate) fn saying(mut self, server: ServerMessage) -> ConnectError {
        self.0.server = Some(server);
        self
    }

    #[must_use]
    pub(crate) fn with_same_token(mut self) -> ConnectError {
        let first = "a newer token was asked for and the token source gave the same one again";
        let hint = match self.0.hint.take() {
            Some(hint) => format!("{first}; {hint}"),
            None => first.to_owned(),
        };
        self.0.hint = Some(hint);
        self.0.same_token_came_back = true;
        self
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new variant does not compile here before it has a number, nor pass before it is listed.
    #[test]
    fn every_kind_is_listed() {
        let of_tls = |failure| match failure {
            TlsFailure::Declined => 0,
            TlsFailure::ErrorInTheClear => 1,
            TlsFailure::NotTls => 2,
            TlsFailure::Name => 3,
            TlsFailure::UnknownIssuer => 4,
            TlsFailure::Validity => 5,
            TlsFailure::Certificate => 6,
            TlsFailure::Handshake => 7,
        };
        let first_refusal = 5 + TlsFailure::ALL.len();
        let number = |kind| match kind {
            ConnectErrorKind::Config => 0,
            ConnectErrorKind::Token => 1,
            ConnectErrorKind::Dns => 2,
            ConnectErrorKind::Tcp => 3,
            ConnectErrorKind::Timeout => 4,
            ConnectErrorKind::Tls(failure) => 5 + of_tls(failure),
            ConnectErrorKind::Refused(refusal) => first_refusal + refusal.number(),
            ConnectErrorKind::Protocol => first_refusal + Refusal::ALL.len(),
        };
        let numbers: Vec<_> = ConnectErrorKind::all().map(number).collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    }
}
