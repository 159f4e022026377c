//! Administers Entra identities on PostgreSQL: the roles of a server ([`roles`]), who is in the tenant ([`directory`],
//! [`graph`]), the identities of virtual machines and the administrators of servers ([`arm`]).
//!
//! Nothing here prints, and nothing reads the environment or a file: the caller hands in what it has.

pub mod arm;
mod client;
pub mod directory;
mod endpoints;
mod error;
pub mod graph;
pub mod roles;

pub use endpoints::{Endpoints, InvalidEndpoint};
pub use error::{AzureError, AzureErrorKind};
