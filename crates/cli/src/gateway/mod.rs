//! `pgentra gateway`: start, reload and shutdown, the check, and the preparation of a server. The
//! configuration is [`pgentra_gateway_config`].

mod administrator;
mod arguments;
mod check;
mod directory;
mod init;
mod ldap;
mod serve;

pub(crate) use arguments::GatewayArguments;
pub(crate) use check::{CheckFault, ServerCheck, examine, listeners, token};
pub(crate) use directory::source as directories;
pub(crate) use serve::{problem, run};
