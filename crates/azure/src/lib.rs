//! Azure Resource Manager ([`arm`]) and Microsoft Graph ([`graph`]): the identities of virtual machines, the administrators of
//! servers, and who is in the tenant.
//!
//! Nothing here prints, and nothing reads the environment or a file: the caller hands in what it has.

pub mod arm;
mod client;
mod endpoints;
mod error;
pub mod graph;

pub use endpoints::{Endpoints, InvalidEndpoint};
pub use error::{AzureError, AzureErrorKind};
