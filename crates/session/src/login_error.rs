//! How a conversation ends before it became a session.

use std::error::Error;
use std::io;

use pgentra_wire::WireError;
use pgentra_wire::fields::{Fields, Severity};
use pgentra_wire::startup::FirstPacketError;

/// SQLSTATEs of failures that are ours (PostgreSQL documentation, "PostgreSQL Error Codes").
pub mod sqlstate {
    /// `sqlclient_unable_to_establish_sqlconnection`.
    pub const UNABLE_TO_CONNECT: &str = "08001";
    /// `connection_failure`.
    pub const CONNECTION_FAILURE: &str = "08006";
    /// `protocol_violation`.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// `feature_not_supported`.
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// `invalid_authorization_specification`.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// `invalid_password`.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// `query_canceled`.
    pub const QUERY_CANCELED: &str = "57014";
    /// `admin_shutdown`.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// `cannot_connect_now`.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
}

/// The end of a conversation that did not become a session.
#[derive(Debug)]
pub enum LoginError {
    /// The client went away, or cannot be spoken to.
    Disconnected(io::Error),
    /// The client is told why.
    Rejected(Fields),
    /// Its first packet is none. As PostgreSQL does, the connection is closed without an answer: a driver that gives up
    /// before it is connected sends Terminate there, and reads an answer as a failure.
    Unanswered(WireError),
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        Self::Disconnected(error)
    }
}

/// What the client sent is not the protocol. The error repeats nothing of it.
impl From<WireError> for LoginError {
    fn from(error: WireError) -> Self {
        Self::Rejected(fatal(sqlstate::PROTOCOL_VIOLATION, &error.to_string()))
    }
}

impl From<FirstPacketError> for LoginError {
    fn from(error: FirstPacketError) -> Self {
        match error {
            FirstPacketError::Unanswered(error) => Self::Unanswered(error),
            FirstPacketError::Refused(error) => error.into(),
        }
    }
}

impl From<Fields> for LoginError {
    fn from(fields: Fields) -> Self {
        Self::Rejected(fields)
    }
}

/// An error that ends the session.
pub fn fatal(sqlstate: &str, message: &str) -> Fields {
    Fields::new(Severity::Fatal, sqlstate, message)
}

/// An error with all its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
