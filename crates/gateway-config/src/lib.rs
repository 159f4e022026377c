//! The configuration of the gateway ([`pgentra_gateway`]): from flags, variables and a file to
//! listeners that serve, and to the next configuration while clients are served.
//!
//! [`GatewayConfiguration::gather`] merges the layers, the weakest first: defaults, a TOML file,
//! `PGENTRA_GATEWAY_*` variables, flags, and the settings in a server's table. It reports everything
//! that is wrong at once. [`LiveGateway::apply`] opens the listeners that are new, gives the servers
//! their new settings, and closes the listeners that are gone; sessions go on. The keys and their
//! meaning are in [`GATEWAY_KEYS`].
//!
//! The environment and all files are read through a [`System`](pgentra_system::System). Nothing is
//! printed.

mod certificate;
mod configuration;
mod directory;
mod key_values;
mod keys;
mod live;
mod mapping_file;
mod server;
mod settings;

pub use configuration::{ConfiguredServer, GatewayConfiguration, GatewayReloadState, GatewaySources};
pub use directory::DirectorySource;
pub use keys::{GATEWAY_KEYS, GatewayKey, GatewaySet};
pub use live::LiveGateway;
pub use mapping_file::{MappingFault, parse_mapping};
pub use settings::{GatewayProcessSettings, ServerSettings, SignInMethod};
