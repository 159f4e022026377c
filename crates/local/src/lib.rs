//! A local Azure with a PostgreSQL that takes its tokens, as a value: the emulator, a PostgreSQL, and
//! the gateway in front of it, in this process and on loopback unless the builder says more.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use pgentra_local::{Flavour, Host, LocalCloud};
//!
//! let mut cloud = LocalCloud::builder().flavour(Flavour::Single).start().await?;
//! cloud.create_roles().await?;
//! let session = cloud.connector(Host::Vm, &[])?.connect().await?;
//! cloud.clock().advance(Duration::from_secs(25 * 60 * 60));
//! let variables = cloud.environment(Host::Aks);
//! # let _ = (session, variables);
//! cloud.stop().await;
//! # Ok(())
//! # }
//! ```

mod administrators;
mod azure_names;
mod builder;
mod clock;
mod cluster;
pub mod control;
mod environment;
mod error;
pub mod faults;
mod folder;
mod gateway;
mod gateway_config;
mod host;
mod identities;
#[cfg(target_os = "linux")]
pub mod inside;
mod kept;
mod local_cloud;
mod page;
mod pgbouncer;
pub mod principals;
mod server_faults;
mod standby;
pub mod state;
mod status;
mod trust_store;
mod user_options;

pub use azure_names::{NamedService, NamesStatus};
pub use builder::LocalCloudBuilder;
pub use clock::CloudClock;
pub use environment::{
    CloudFiles, FOLDER_VARIABLE, INSTANCE_VARIABLE, METADATA_VARIABLE, NAME_VARIABLE, VARIABLES, unproxied,
};
pub use error::{Error, Failure, FailureKind};
pub use folder::folder_of;
pub use gateway::RunningGateway;
pub use host::{Host, UnknownHost};
pub use identities::IdentityStatus;
pub use kept::state_folder;
pub use local_cloud::{LocalCloud, SERVER_NAME};
pub use pgentra_gateway::Flavour;
pub use pgentra_localdb::Janitor;
pub use standby::Standby;
pub use status::{ServerStatus, Status};
pub use trust_store::JAVA_VARIABLE;
pub use user_options::{keep_java_options, own_java_options};
