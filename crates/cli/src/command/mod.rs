//! One file per command.

pub(crate) mod completions;
pub(crate) mod manual;
pub(crate) mod query;
#[cfg(unix)]
pub(crate) mod quickstart;
pub(crate) mod script;
pub(crate) mod token;
pub(crate) mod whoami;
