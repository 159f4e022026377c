//! What is known of a client and of the sign-in of its session.

use pgentra_connect::TokenIdentity;

/// The role, database and program that a client named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Names {
    pub(super) client_role: Option<String>,
    pub(super) role: Option<String>,
    pub(super) database: Option<String>,
    pub(super) application_name: Option<String>,
}

/// The properties of a session's sign-in.
#[derive(Debug, Default)]
pub(crate) struct SignIn {
    /// The identity of the token.
    pub(crate) identity: Option<TokenIdentity>,
    /// The process id of the server's backend.
    pub(crate) backend_pid: Option<u32>,
}
