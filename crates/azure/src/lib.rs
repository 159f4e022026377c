//! Azure Resource Manager ([`arm`]) and Microsoft Graph ([`graph`]): the identities of hosts, the administrators of
//! servers, and who is in the tenant.
//!
//! The crate does not print, and reads neither the environment nor files: the caller passes in all settings.

pub mod arm;
mod client;
mod endpoints;
mod error;
pub mod graph;

pub use endpoints::{Endpoints, InvalidEndpoint};
pub use error::{AzureError, AzureErrorKind};
