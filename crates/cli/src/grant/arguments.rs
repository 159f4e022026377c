use clap::Args;
use pgentra_roles::RoleName;

use crate::identity::host_ref::HostRef;
use crate::identity::{Azure, FederationArguments};
use crate::options::{Identity, Output, Server};

/// Arguments of `pgentra grant`.
#[derive(Debug, Args)]
pub(crate) struct Grant {
    #[command(flatten)]
    pub(crate) access: HostAccess,
}

/// Arguments of `pgentra revoke`.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) access: HostAccess,
    /// Take the identity away from the host too. A system-assigned identity is deleted by this. An
    /// identity that other roles of the server or role assignments in Azure use stays.
    #[arg(long)]
    pub(crate) unassign: bool,
}

/// Which host may sign in as which role of which server.
#[derive(Debug, Args)]
pub(crate) struct HostAccess {
    /// The host: the name of a virtual machine, vm/NAME, vmss/NAME, webapp/NAME, functionapp/NAME,
    /// containerapp/NAME, arc/NAME, identity/NAME, aks/CLUSTER/NAMESPACE/SERVICEACCOUNT,
    /// github/OWNER/REPOSITORY or github/OWNER/REPOSITORY@ENVIRONMENT.
    #[arg(value_name = "HOST")]
    pub(crate) place: HostRef,
    /// Database role for the host.
    #[arg(long, value_name = "NAME")]
    pub(crate) role: RoleName,
    /// The server: the name of a flexible server or an elastic cluster, horizondb/NAME, or a host name. Default: -h,
    /// else PGHOST.
    #[arg(long, value_name = "SERVER", conflicts_with = "host")]
    pub(crate) server: Option<String>,
    /// A user-assigned identity, by name or resource id, instead of the host's own. aks and github
    /// need one.
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) identity: Option<String>,
    #[command(flatten)]
    pub(crate) federation: FederationArguments,
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
