//! Settings of a server program: layers from a TOML file, variables and flags, the weakest first.
//!
//! A program has a table of [`SettingKey`]s; the type of what stores a value ([`KeyTable`]) names it. A
//! [`SettingLayer`] is what one source says; [`Problems`] collects everything that is wrong, so that it is
//! reported at once. What both proxies need beside that is here too: listen addresses, the sockets
//! that systemd hands over, the audit log and the listeners of probes and metrics.
//!
//! The environment and files are read through a [`System`](pgentra_system::System). Nothing is
//! printed.

mod effective_settings;
mod error;
mod file;
mod file_watch;
mod inherited;
mod keys;
mod layer;
mod listen_addr;
mod nearest;
pub mod quantity;
mod raw_value;
mod telemetry;

pub use effective_settings::EffectiveSettings;
pub use error::{ConfigProblem, ProblemKind, Problems, SettingsError, chain};
pub use file::{Written, WrittenTable, read};
pub use file_watch::{FileWatch, LOOK};
pub use inherited::{InheritedSocket, InheritedSockets};
pub use keys::{Form, KeyTable, SettingKey};
pub use layer::{Setting, SettingLayer, SettingOrigin, UNNAMED};
pub use listen_addr::ListenAddr;
pub use nearest::{nearest, nearest_name};
pub use raw_value::RawValue;
pub use telemetry::{AuditPlace, LogFormat, ObservedEndpoints, TelemetrySettings};
