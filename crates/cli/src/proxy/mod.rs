//! `pgentra proxy`: what it is told, and what it does.

mod arguments;
mod configuration;
mod file;
mod keys;
mod level;
mod place;
mod problems;
mod serve;
mod settings;

pub(crate) use arguments::Proxy;
pub(crate) use serve::run;
