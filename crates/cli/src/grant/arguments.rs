use clap::Args;
use pgentra_roles::RoleName;

use crate::identity::Azure;
use crate::options::{Identity, Output, Server};

/// Arguments of `pgentra grant`.
#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// Name of the virtual machine.
    pub(crate) vm: String,
    /// Database role for the machine.
    #[arg(long, value_name = "NAME")]
    pub(crate) role: RoleName,
    /// The server: the name of a flexible server, or a host name. Default: -h, else PGHOST.
    #[arg(long, value_name = "SERVER", conflicts_with = "host")]
    pub(crate) server: Option<String>,
    /// A user-assigned identity, by name or resource id, instead of the machine's own.
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) identity: Option<String>,
    /// Make the changes without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) azure: Azure,
    #[command(flatten)]
    pub(crate) connection: Server,
    #[command(flatten)]
    pub(crate) caller: Identity,
}
