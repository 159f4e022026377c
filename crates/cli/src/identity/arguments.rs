//! Arguments of `pgentra identity`.

use clap::{Args, Subcommand, ValueEnum};
use pgentra_azure::arm::AzureHostType;

use super::host_ref::HostRef;
use super::server_ref::ServerRef;
use crate::options::{Identity, Output};

/// `pgentra identity …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Give a host an identity in addition to those it has; a service account or a repository gets a
    /// federated credential.
    #[command(after_help = "Example: pgentra identity assign --vm myVm -g myResourceGroup\n         \
                      pgentra identity assign webapp/my-app\n         \
                      pgentra identity assign aks/my-cluster/default/my-app --identity my-identity")]
    Assign(Assign),
    /// Show the identities of a host, or the federated credentials of an identity.
    #[command(after_help = "Example: pgentra identity show --vm myVm -g myResourceGroup -o json\n         \
                      pgentra identity show identity/my-identity")]
    Show(Show),
    /// Find a managed identity or an application by its name, or a user or group.
    #[command(after_help = "Example: pgentra identity find myVm")]
    Find(Find),
    /// Manage the Entra administrators of a flexible server or of a HorizonDB cluster.
    #[command(
        subcommand,
        after_help = "Example: pgentra identity server-admin add dba@example.com --server my-server -g myResourceGroup"
    )]
    ServerAdmin(ServerAdmin),
}

/// A host, by its kind and name.
#[derive(Clone, Debug, Args)]
#[group(required = true)]
pub(crate) struct NamedHost {
    /// The host: vm/NAME, vmss/NAME, webapp/NAME, functionapp/NAME, containerapp/NAME, arc/NAME,
    /// identity/NAME, aks/CLUSTER/NAMESPACE/SERVICEACCOUNT, github/OWNER/REPOSITORY or
    /// github/OWNER/REPOSITORY@ENVIRONMENT.
    #[arg(value_name = "HOST")]
    pub(crate) place: Option<HostRef>,
    /// Name of a virtual machine: the same as vm/NAME.
    #[arg(long, value_name = "VM", conflicts_with = "place")]
    pub(crate) vm: Option<String>,
}

impl NamedHost {
    /// The host that is named.
    pub(crate) fn named(&self) -> HostRef {
        match (&self.place, &self.vm) {
            (Some(place), _) => place.clone(),
            (None, vm) => HostRef::Azure(AzureHostType::VirtualMachine, vm.clone().unwrap_or_default()),
        }
    }
}

/// Which tokens of a repository at GitHub are taken.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FederationArguments {
    /// Branch whose workflows sign in, for github without an environment. Default: main.
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,
    /// Issuer of the tokens, for github at a company of its own. Default: GitHub's.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
}

/// Arguments of `pgentra identity assign`.
#[derive(Debug, Args)]
pub(crate) struct Assign {
    #[command(flatten)]
    pub(crate) host: NamedHost,
    #[command(flatten)]
    pub(crate) federation: FederationArguments,
    /// User-assigned identity to give the host, by name or resource id. Default: a system-assigned
    /// identity, which aks and github do not have.
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
    #[command(flatten)]
    pub(crate) host: NamedHost,
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
    /// The name; case does not matter.
    pub(crate) name: String,
    /// Find all names with this prefix.
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Kind of principal to search for.
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

/// The kinds of principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrincipalType {
    /// A managed identity or an application.
    Service,
    /// A user.
    User,
    /// A security or Microsoft 365 group.
    Group,
}

/// `pgentra identity server-admin …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerAdmin {
    /// List the Entra administrators of the server.
    #[command(
        after_help = "Example: pgentra identity server-admin list --server my-server -g myResourceGroup\n         \
                      pgentra identity server-admin list --server horizondb/my-cluster"
    )]
    List(AdminList),
    /// Make a user, group or identity an Entra administrator of the server.
    #[command(
        after_help = "Example: pgentra identity server-admin add dba@example.com --server my-server -g myResourceGroup"
    )]
    Add(AdminChange),
    /// Remove an Entra administrator from the server.
    #[command(
        after_help = "Example: pgentra identity server-admin remove dba@example.com --server my-server -g myResourceGroup"
    )]
    Remove(AdminChange),
}

/// Arguments of `pgentra identity server-admin list`.
#[derive(Debug, Args)]
pub(crate) struct AdminList {
    /// The server: the name of a flexible server or an elastic cluster, or horizondb/NAME.
    #[arg(long, value_name = "SERVER")]
    pub(crate) server: ServerRef,
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
    /// The principal: the name of a user (the sign-in name), group, managed identity or
    /// application; or an object id.
    #[arg(value_name = "WHO")]
    pub(crate) who: String,
    #[command(flatten)]
    pub(crate) of: AdminList,
}

/// Where the resources are in Azure.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Azure")]
pub(crate) struct Azure {
    /// Resource group. Default: the one in which the name is found, if it is only one.
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
