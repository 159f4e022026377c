//! `pgentra proxy`: configuration, start, reload and shutdown.

mod access;
mod arguments;
mod check;
mod client_auth;
mod configuration;
mod console;
mod diff;
mod effective_settings;
mod file;
mod flags;
mod greeting;
mod hash_password;
mod inherited;
mod keys;
mod layer;
mod listen_addr;
mod notify;
mod print_config;
mod problems;
mod program_formats;
mod raw_value;
mod running;
mod serve;
mod settings;
mod signals;
mod telemetry;
mod wait;
mod word;

pub(crate) use arguments::Proxy;
pub(crate) use configuration::Configuration;
pub(crate) use layer::meant;
pub(crate) use serve::run;
pub(crate) use settings::LogFormat;
