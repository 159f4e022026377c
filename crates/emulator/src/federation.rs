//! Issuers outside Entra whose tokens Entra takes as proof: a Kubernetes cluster, GitHub, Azure Pipelines.

mod discovery;
mod github;
mod issuer;
mod issuers;
mod kubernetes;
mod pipelines;

pub(crate) use discovery::{configuration, endpoint, keys};
pub(crate) use github::workflow_token;
pub use issuers::{BINDING_AUDIENCE, EXCHANGE_AUDIENCE, FederatedCredential, Federation};
pub(crate) use pipelines::{connection_token, request_path};
