//! How a connection ends before it becomes a session.

use std::error::Error;
use std::io;

use pgentra_wire::WireError;
use pgentra_wire::fields::{Fields, Severity};
use pgentra_wire::startup::FirstPacketError;

/// SQLSTATEs of errors that this crate and its users send (PostgreSQL documentation, "PostgreSQL
/// Error Codes").
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
    /// `invalid_catalog_name`.
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// `query_canceled`.
    pub const QUERY_CANCELED: &str = "57014";
    /// `admin_shutdown`.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// `cannot_connect_now`.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// `config_file_error`.
    pub const CONFIG_FILE_ERROR: &str = "F0000";
}

/// Why a connection did not become a session.
#[derive(Debug)]
pub enum LoginError {
    /// The client hung up, or its connection failed.
    Disconnected(io::Error),
    /// The client gets this error.
    Rejected(Fields),
    /// The first packet is not of the protocol. As in PostgreSQL, the connection is closed without
    /// an answer: a driver that gives up before it is connected sends Terminate there, and would
    /// take an answer for a failure.
    Unanswered(WireError),
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        Self::Disconnected(error)
    }
}

/// The client's bytes are not of the protocol. The error repeats none of them.
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

/// An ErrorResponse of severity FATAL.
pub fn fatal(sqlstate: &str, message: &str) -> Fields {
    Fields::new(Severity::Fatal, sqlstate, message)
}

/// An error with all its causes, separated by colons.
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

/// PostgreSQL's error for a start-up without a role.
pub fn no_user() -> Fields {
    fatal(sqlstate::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
}

/// PostgreSQL's error when all its connections are in use.
pub fn too_many_clients() -> Fields {
    fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
}

/// PostgreSQL's error for a client that did not authenticate in time.
pub fn login_timeout() -> Fields {
    fatal(sqlstate::QUERY_CANCELED, "canceling authentication due to timeout")
}

/// The error for a first packet that is late.
pub(super) fn silent() -> LoginError {
    login_timeout().with_detail("The client sent no start-up packet in time.").into()
}
