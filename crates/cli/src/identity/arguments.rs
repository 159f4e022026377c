//! What a person typed behind `pgentra identity`.

use clap::{Args, Subcommand, ValueEnum};

use crate::options::{Identity, Output};

/// `pgentra identity …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Give a virtual machine an identity; those that it has stay.
    #[command(after_help = "Example: pgentra identity assign --vm myVm -g myResourceGroup")]
    Assign(Assign),
    /// Show the identities of a virtual machine.
    #[command(after_help = "Example: pgentra identity show --vm myVm -g myResourceGroup -o json")]
    Show(Show),
    /// Find a managed identity or an application by its name, or a user or group.
    #[command(after_help = "Example: pgentra identity find myVm")]
    Find(Find),
    /// The Entra administrators of a flexible server.
    #[command(
        subcommand,
        after_help = "Example: pgentra identity server-admin add dba@example.com --server my-server -g myResourceGroup"
    )]
    ServerAdmin(ServerAdmin),
}

/// Arguments of `pgentra identity assign`.
#[derive(Debug, Args)]
pub(crate) struct Assign {
    /// Name of the virtual machine.
    #[arg(long, value_name = "VM")]
    pub(crate) vm: String,
    /// The user-assigned identity to give it, by name or resource id. Default: an identity of its own, system-assigned.
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) identity: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) azure: Azure,
    #[command(flatten)]
    pub(crate) caller: Identity,
}

/// Arguments of `pgentra identity show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Name of the virtual machine.
    #[arg(long, value_name = "VM")]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) azure: Azure,
    #[command(flatten)]
    pub(crate) caller: Identity,
}

/// Arguments of `pgentra identity find`.
#[derive(Debug, Args)]
pub(crate) struct Find {
    /// The name. Case does not matter to Entra.
    pub(crate) name: String,
    /// Find all whose name begins like this.
    #[arg(long)]
    pub(crate) prefix: bool,
    /// What to look for.
    #[arg(long, value_enum, default_value_t = PrincipalType::Service, value_name = "KIND")]
    pub(crate) kind: PrincipalType,
    /// Microsoft Graph's address, for a private cloud. Default: PGENTRA_GRAPH_ENDPOINT, else the cloud's.
    #[arg(long, value_name = "URL")]
    pub(crate) graph_endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) caller: Identity,
}

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrincipalType {
    /// A managed identity or an application.
    Service,
    /// A person.
    User,
    /// A group.
    Group,
}

/// `pgentra identity server-admin …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerAdmin {
    /// List them.
    #[command(
        after_help = "Example: pgentra identity server-admin list --server my-server -g myResourceGroup"
    )]
    List(AdminList),
    /// Make somebody one.
    #[command(
        after_help = "Example: pgentra identity server-admin add dba@example.com --server my-server -g myResourceGroup"
    )]
    Add(AdminChange),
    /// Take it away from somebody.
    #[command(
        after_help = "Example: pgentra identity server-admin remove dba@example.com --server my-server -g myResourceGroup"
    )]
    Remove(AdminChange),
}

/// Arguments of `pgentra identity server-admin list`.
#[derive(Debug, Args)]
pub(crate) struct AdminList {
    /// Name of the flexible server.
    #[arg(long, value_name = "SERVER")]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) azure: Azure,
    #[command(flatten)]
    pub(crate) caller: Identity,
}

/// Arguments of `pgentra identity server-admin add` and `remove`.
#[derive(Debug, Args)]
pub(crate) struct AdminChange {
    /// Who: the name of a user (the sign-in name), group, managed identity or application; or an object id.
    #[arg(value_name = "WHO")]
    pub(crate) who: String,
    #[command(flatten)]
    pub(crate) of: AdminList,
}

/// Where in Azure.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Azure")]
pub(crate) struct Azure {
    /// Resource group. Default: the one that the name is found in, if it is one.
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub(crate) resource_group: Option<String>,
    /// Id of the subscription. Default: AZURE_SUBSCRIPTION_ID, else the only one that the identity has a role in.
    #[arg(long, value_name = "GUID")]
    pub(crate) subscription: Option<String>,
    /// Resource Manager's address, for a private cloud. Default: PGENTRA_MANAGEMENT_ENDPOINT, else the cloud's.
    #[arg(long, value_name = "URL")]
    pub(crate) management_endpoint: Option<String>,
    /// Microsoft Graph's address, for a private cloud. Default: PGENTRA_GRAPH_ENDPOINT, else the cloud's.
    #[arg(long, value_name = "URL")]
    pub(crate) graph_endpoint: Option<String>,
}
