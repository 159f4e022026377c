//! `pgentra proxy`: start, reload and shutdown. The configuration is [`pgentra_proxy_config`].

mod access;
mod arguments;
mod check;
mod greeting;
mod hash_password;
mod print_config;
mod program_formats;
mod serve;
mod sources;
mod wait;

pub(crate) use arguments::Proxy;
pub(crate) use serve::run;
