//! The configuration of the auth proxy ([`pgentra_proxy`]): from flags, variables and a file to listeners that serve, and
//! to the next configuration while clients are served.
//!
//! [`Configuration::gather`] merges the layers, the weakest first: defaults, a TOML file, `PGENTRA_*` variables, flags, and
//! a target's own settings. It reports everything that is wrong at once. [`RunningProxy::apply`] opens the listeners that
//! are new, gives the others their new settings, and closes those that are gone; sessions go on. The keys and their
//! meaning are in [`KEYS`].
//!
//! The environment and all files are read through a [`System`]. Nothing is printed; what happens
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

mod bind;
mod client_auth;
mod configuration;
mod diff;
mod identity_keys;
mod key;
mod keys;
mod listener_kind;
mod places;
mod running;
mod settings;
mod sources;
mod word;

use pgentra_proxy::telemetry::Telemetry;
use pgentra_system::System;
use tokio_util::sync::CancellationToken;

pub use configuration::{Configuration, ReloadState, TargetConfig};
pub use key::{Key, Set};
pub use keys::KEYS;
pub use listener_kind::ListenerKind;
pub use pgentra_settings::{
    AuditPlace, ConfigProblem, Form, InheritedSockets, ListenAddr, LogFormat, ProblemKind,
    SettingsError as ProxyConfigError, TelemetrySettings, nearest_name, quantity,
};
pub use running::{RunningListener, RunningProxy};
pub use settings::{ClientAuthSettings, ClientName, ProcessSettings, TargetSettings};
pub use sources::{Commands, Sources};

/// The audit log and the HTTP listeners of a running proxy.
pub type TelemetryEndpoints = pgentra_settings::ObservedEndpoints<Telemetry>;

/// Opens the audit log and the HTTP listeners. `/quitquitquit` cancels `stop`.
///
/// # Errors
///
/// A file or listener that cannot be opened.
pub async fn open_telemetry(
    system: &System,
    settings: &TelemetrySettings,
    stop: &CancellationToken,
) -> Result<TelemetryEndpoints, ProxyConfigError> {
    let clock = system.clock().clone();
    let telemetry = |audit| Telemetry::new(move || clock.now(), stop.clone(), audit);
    TelemetryEndpoints::open(settings, telemetry).await
}
