//! The configuration of the auth proxy ([`pgentra_proxy`]): from flags, variables and a file to listeners that serve, and
//! to the next configuration while clients are served.
//!
//! [`Configuration::gather`] merges the layers, the weakest first: defaults, a TOML file, `PGENTRA_*` variables, flags, and
//! a target's own settings. It reports everything that is wrong at once. [`RunningProxy::apply`] opens the listeners that
//! are new, gives the others their new settings, and closes those that are gone; sessions go on. The keys and their
//! meaning are in [`KEYS`].
//!
//! The environment and all files are read through a [`System`](pgentra_system::System). Nothing is printed; what happens
//! later, such as a certificate that was read again, is logged with `tracing`.
//!
//! ```no_run
//! use pgentra_proxy_config::{Configuration, ReloadState, RunningProxy, Sources};
//! use pgentra_system::System;
//!
//! # async fn reload_requested() {}
//! # async fn shutdown_requested() {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let system = System::real();
//! let sources = Sources::file("/etc/pgentra/proxy.toml");
//! let mut state = ReloadState::default();
//! let mut running = RunningProxy::default();
//! running.apply(Configuration::gather(&system, &sources, &mut state)?, &state).await?;
//!
//! loop {
//!     tokio::select! {
//!         () = reload_requested() => {}
//!         () = shutdown_requested() => break,
//!     }
//!     // A configuration with problems changes nothing.
//!     match Configuration::gather(&system, &sources, &mut state) {
//!         Ok(next) => running.apply(next, &state).await?.iter().for_each(|change| println!("{change}")),
//!         Err(error) => eprintln!("{error}"),
//!     }
//! }
//! running.stop().cancel();
//! running.ended().await;
//! # Ok(())
//! # }
//! ```

mod client_auth;
mod configuration;
mod diff;
mod effective_settings;
mod error;
mod file;
mod inherited;
mod keys;
mod layer;
mod listen_addr;
mod nearest;
pub mod quantity;
mod raw_value;
mod running;
mod settings;
mod sources;
mod telemetry;
mod word;

pub use configuration::{Configuration, ReloadState, TargetConfig};
pub use error::{ConfigProblem, ProblemKind, ProxyConfigError};
pub use inherited::InheritedSockets;
pub use keys::{Form, KEYS, Key};
pub use listen_addr::ListenAddr;
pub use nearest::nearest_name;
pub use running::{RunningListener, RunningProxy};
pub use settings::{
    AuditPlace, ClientAuthSettings, ClientName, LogFormat, ProcessSettings, TargetSettings, TelemetrySettings,
};
pub use sources::{Commands, Sources};
pub use telemetry::TelemetryEndpoints;
