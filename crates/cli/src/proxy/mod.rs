//! `pgentra proxy`: what it is told, and what it does.

mod arguments;
mod check;
mod configuration;
mod difference;
mod door;
mod file;
mod given;
mod greeting;
mod hash_password;
mod inherited;
mod keys;
mod level;
mod notify;
mod place;
mod problems;
mod running;
mod seen;
mod serve;
mod settings;
mod signals;
mod voice;
mod wait;
mod word;

pub(crate) use arguments::Proxy;
pub(crate) use level::meant;
pub(crate) use serve::run;
pub(crate) use settings::LogFormat;
