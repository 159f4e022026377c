//! The identity side of a local Azure: metadata endpoints, Entra issuer and keys, its own clock, a fault queue.
//!
//! [`LocalAzure::start`] gives a virtual machine `myVm` with a system-assigned identity and the user-assigned identity
//! `myIdentity`, an App Service and a Cloud Shell endpoint, and an Entra tenant with an administrator, a group and the
//! application `myApp`, and the management API (Resource Manager and Graph) around them. Clients reach them over real HTTP and TLS, on
//! loopback only unless [`Options::entra_address`] says otherwise. The tokens are signed by keys that exist in memory only: a verifier that does not trust this issuer
//! refuses them.
//!
//! Where the answers of the real services are documented, these are the same in status, body and the types of values.

mod app_service;
mod arc_agent;
mod azure_arc;
mod azure_names;
mod clock;
mod cloud;
mod cloud_shell;
mod directory;
mod door;
mod endpoint;
mod entra;
mod error;
mod exchange;
mod fault;
mod faulty_stream;
mod federation;
mod holders;
mod host;
mod hosts;
mod imds;
mod journal;
mod keys;
mod listen;
mod local_azure;
mod machine_learning;
mod management;
mod mint;
pub mod options;
mod saved;
mod serve;
mod service_fabric;
mod subscription;
mod token_log;
mod token_proxy;

pub use pgentra_certificates as certificates;

pub use azure_names::{AzureNames, ENTRA_NAMES, GRAPH_NAME, MANAGEMENT_NAME, SERVER_SUFFIX};
pub use clock::Clock;
pub use directory::{Application, Identity, IdentityKind, Ids, Machine};
pub use endpoint::Endpoint;
pub use error::StartError;
pub use fault::{ActiveFault, Fault, Faults};
pub use federation::{BINDING_AUDIENCE, EXCHANGE_AUDIENCE, FederatedCredential, Federation};
pub use hosts::{AppService, AzureArc, GitHub, MachineLearning, Pipelines, ServiceFabric, TokenProxy};
pub use journal::{Journal, JournalEntry, ResponseOutcome};
pub use keys::KeyError;
pub use local_azure::{LocalAzure, Principal};
pub use mint::Draft;
pub use options::Options;
pub use pgentra_directory::{Group, PrincipalKind, User};
pub use saved::SavedAzure;
pub use subscription::{Administrator, PGBOUNCER_ENABLED, ServerChange, ServerEdit};
pub use token_log::TokenRecord;
