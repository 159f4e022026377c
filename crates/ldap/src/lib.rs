//! A responder for PostgreSQL's LDAP authentication: a client signs in to a stock PostgreSQL with a
//! token as its password, and no proxy is in the path of its data.
//!
//! One line of `pg_hba.conf` sends the passwords of roles here:
//!
//! ```text
//! hostssl all +entra 0.0.0.0/0 ldap ldapserver=127.0.0.1 ldapport=389 ldapprefix="" ldapsuffix=""
//! ```
//!
//! PostgreSQL asks the client for a cleartext password and sends it in a simple bind (RFC 4511
//! section 4.2). The responder verifies the token and compares it with the mapping of the role, as
//! the gateway does, and answers. It is no directory: it answers no search and knows no entry.
//!
//! The bind is not encrypted, so the responder listens on loopback addresses only. The client gets
//! PostgreSQL's own words for every refusal; PostgreSQL's log has the reason, as "LDAP diagnostics".

mod message;
mod responder;
mod shape;

pub use message::{LdapRequest, OtherRequest, Password};
pub use responder::{LdapResponder, Options, ServeError};
pub use shape::BadMessage;
