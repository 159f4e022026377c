//! The endpoints of the local cloud, and which of them is behind a path.

use std::fmt;

/// An HTTP endpoint: the target of faults, and the key of journal entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// Virtual machine: `/metadata/identity/oauth2/token`.
    ImdsToken,
    /// Virtual machine: `/metadata/identity/info`.
    ImdsInfo,
    /// Virtual machine: `/metadata/instance`.
    ImdsInstance,
    /// App Service, Functions, Container Apps: `/MSI/token`, in the protocols 2019-08-01 and 2017-09-01.
    AppService,
    /// Cloud Shell: `/oauth2/token`.
    CloudShell,
    /// Entra: `/common/discovery/instance`.
    InstanceDiscovery,
    /// Entra: `/{tenant}/.well-known/openid-configuration` and `/{tenant}/v2.0/.well-known/openid-configuration`.
    OpenIdConfiguration,
    /// Entra: `/{tenant}/discovery/keys` and `/{tenant}/discovery/v2.0/keys`.
    Keys,
    /// Entra: `/{tenant}/oauth2/token` and `/{tenant}/oauth2/v2.0/token`.
    EntraToken,
    /// Entra: `/{tenant}/oauth2/v2.0/authorize`.
    Authorize,
    /// Entra: `/{tenant}/oauth2/v2.0/devicecode`.
    DeviceCode,
    /// Entra: `/{tenant}/oauth2/deviceauth`.
    DeviceAuth,
    /// Azure ML: `/azureml/token`.
    MachineLearning,
    /// Azure Arc: `/metadata/identity/oauth2/token` of the agent.
    Arc,
    /// Service Fabric: `/metadata/identity/oauth2/token` of the node.
    ServiceFabric,
    /// AKS identity bindings: the token endpoint behind the proxy.
    TokenProxy,
    /// Discovery document of a federated issuer.
    IssuerConfiguration,
    /// Keys of a federated issuer.
    IssuerKeys,
    /// GitHub: where a workflow gets its token.
    GitHub,
    /// Azure Pipelines: where a job gets its token.
    Pipelines,
    /// Resource Manager: tenants, subscriptions, resource groups.
    ResourceManager,
    /// Resource Manager: a virtual machine.
    VirtualMachine,
    /// Resource Manager: apps, scale sets and Arc servers with their identities.
    IdentityHolder,
    /// Resource Manager: a Kubernetes cluster.
    Cluster,
    /// Resource Manager: user-assigned identities and their federated credentials.
    UserAssignedIdentity,
    /// Resource Manager: a flexible server and its administrators.
    FlexibleServer,
    /// Resource Manager: a HorizonDB cluster and its administrators.
    HorizonDb,
    /// Resource Manager: status and result of an operation that takes time.
    Operation,
    /// Microsoft Graph: users, groups, service principals.
    Graph,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImdsToken => "imds-token",
            Self::ImdsInfo => "imds-info",
            Self::ImdsInstance => "imds-instance",
            Self::AppService => "app-service",
            Self::CloudShell => "cloud-shell",
            Self::InstanceDiscovery => "instance-discovery",
            Self::OpenIdConfiguration => "openid-configuration",
            Self::Keys => "keys",
            Self::EntraToken => "entra-token",
            Self::Authorize => "authorize",
            Self::DeviceCode => "device-code",
            Self::DeviceAuth => "device-auth",
            Self::MachineLearning => "machine-learning",
            Self::Arc => "arc",
            Self::ServiceFabric => "service-fabric",
            Self::TokenProxy => "token-proxy",
            Self::IssuerConfiguration => "issuer-configuration",
            Self::IssuerKeys => "issuer-keys",
            Self::GitHub => "github",
            Self::Pipelines => "pipelines",
            Self::ResourceManager => "resource-manager",
            Self::VirtualMachine => "virtual-machine",
            Self::IdentityHolder => "identity-holder",
            Self::Cluster => "cluster",
            Self::UserAssignedIdentity => "user-assigned-identity",
            Self::FlexibleServer => "flexible-server",
            Self::HorizonDb => "horizondb",
            Self::Operation => "operation",
            Self::Graph => "graph",
        })
    }
}
