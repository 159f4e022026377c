//! Which resource a path of the management address names.

use hyper::Method;

use crate::endpoint::Endpoint;
use crate::holders::HolderType;

/// What a path of the management address names. Segments are compared without regard to case, as Azure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResourcePath<'a> {
    Endpoints,
    Tenants,
    Subscriptions,
    Subscription,
    ResourceGroups,
    ResourceGroup(&'a str),
    VirtualMachines {
        group: Option<&'a str>,
    },
    VirtualMachine {
        group: &'a str,
        name: &'a str,
    },
    Identities {
        group: Option<&'a str>,
    },
    Identity {
        group: &'a str,
        name: &'a str,
    },
    FederatedCredentials {
        group: &'a str,
        identity: &'a str,
    },
    FederatedCredential {
        group: &'a str,
        identity: &'a str,
        name: &'a str,
    },
    /// Resources of other types that have identities.
    Holders {
        kind: HolderType,
        group: Option<&'a str>,
    },
    Holder {
        kind: HolderType,
        group: &'a str,
        name: &'a str,
    },
    Clusters {
        group: Option<&'a str>,
    },
    Cluster {
        group: &'a str,
        name: &'a str,
    },
    /// Roles of principals at a scope: the subscription, or what is in it.
    RoleAssignments {
        scope: &'a str,
    },
    RoleAssignment {
        scope: &'a str,
        name: &'a str,
    },
    /// The built-in roles.
    RoleDefinitions,
    RoleDefinition(&'a str),
    /// A resource provider.
    Provider(&'a str),
    Servers {
        group: Option<&'a str>,
    },
    Server {
        group: &'a str,
        name: &'a str,
    },
    Administrators {
        group: &'a str,
        server: &'a str,
    },
    Administrator {
        group: &'a str,
        server: &'a str,
        id: &'a str,
    },
    /// Parameters of a server.
    Configurations {
        group: &'a str,
        server: &'a str,
    },
    Configuration {
        group: &'a str,
        server: &'a str,
        name: &'a str,
    },
    HorizonDbClusters {
        group: Option<&'a str>,
    },
    HorizonDbCluster {
        group: &'a str,
        name: &'a str,
    },
    /// What is below a HorizonDB cluster.
    HorizonDbPart {
        group: &'a str,
        cluster: &'a str,
        part: HorizonDbPart<'a>,
    },
    /// Status of an operation: `Azure-AsyncOperation`.
    Operation(&'a str),
    /// Result of an operation: `Location`.
    Result(&'a str),
}

/// A resource below a HorizonDB cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HorizonDbPart<'a> {
    Endpoints,
    Authentication(&'a str),
    Administrators,
    Administrator(&'a str),
}

impl<'a> ResourcePath<'a> {
    /// The place and the subscription in its path.
    pub(super) fn of(path: &'a str) -> Option<(Self, Option<&'a str>)> {
        // `az resource show` writes two slashes between provider and type.
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is = |at: usize, word: &str| parts.get(at).is_some_and(|part| part.eq_ignore_ascii_case(word));
        // `…/providers/NAMESPACE/KIND`, in the subscription or in a resource group.
        let group = parts.get(3).copied().filter(|_| is(2, "resourceGroups"));
        let at = if group.is_some() { 4 } else { 2 };
        let kind =
            |namespace: &str, kind: &str| is(at, "providers") && is(at + 1, namespace) && is(at + 2, kind);
        let rest = parts.get(at + 3..).unwrap_or_default();
        let place = match (&parts[..], group) {
            ([_, _], _) if is(0, "metadata") && is(1, "endpoints") => return Some((Self::Endpoints, None)),
            ([_], _) if is(0, "tenants") => return Some((Self::Tenants, None)),
            _ if !is(0, "subscriptions") => return None,
            _ if authorization(path).is_some() => authorization(path)?,
            ([_], _) => return Some((Self::Subscriptions, None)),
            ([_, _], _) => Self::Subscription,
            ([_, _, _], _) if is(2, "resourceGroups") => Self::ResourceGroups,
            ([_, _, _, _], Some(group)) => Self::ResourceGroup(group),
            _ if kind("Microsoft.Compute", "virtualMachines") => match (rest, group) {
                ([], group) => Self::VirtualMachines { group },
                ([name], Some(group)) => Self::VirtualMachine { group, name },
                _ => return None,
            },
            _ if kind("Microsoft.ManagedIdentity", "userAssignedIdentities") => match (rest, group) {
                ([], group) => Self::Identities { group },
                ([name], Some(group)) => Self::Identity { group, name },
                ([identity, _], Some(group)) if is(at + 4, "federatedIdentityCredentials") => {
                    Self::FederatedCredentials { group, identity }
                }
                ([identity, _, name], Some(group)) if is(at + 4, "federatedIdentityCredentials") => {
                    Self::FederatedCredential { group, identity, name }
                }
                _ => return None,
            },
            _ if kind("Microsoft.ContainerService", "managedClusters") => match (rest, group) {
                ([], group) => Self::Clusters { group },
                ([name], Some(group)) => Self::Cluster { group, name },
                _ => return None,
            },
            ([_, _, _, namespace], None) if is(2, "providers") => Self::Provider(namespace),
            _ if kind("Microsoft.DBforPostgreSQL", "flexibleServers") => match (rest, group) {
                ([], group) => Self::Servers { group },
                ([name], Some(group)) => Self::Server { group, name },
                ([server, _], Some(group)) if is(at + 4, "administrators") => {
                    Self::Administrators { group, server }
                }
                ([server, _, id], Some(group)) if is(at + 4, "administrators") => {
                    Self::Administrator { group, server, id }
                }
                ([server, _], Some(group)) if is(at + 4, "configurations") => {
                    Self::Configurations { group, server }
                }
                ([server, _, name], Some(group)) if is(at + 4, "configurations") => {
                    Self::Configuration { group, server, name }
                }
                _ => return None,
            },
            _ if kind("Microsoft.HorizonDb", "clusters") => match (rest, group) {
                ([], group) => Self::HorizonDbClusters { group },
                ([name], Some(group)) => Self::HorizonDbCluster { group, name },
                ([cluster, below @ ..], Some(group)) => {
                    Self::HorizonDbPart { group, cluster, part: HorizonDbPart::of(below)? }
                }
                _ => return None,
            },
            ([_, _, _, _, _, _, _, id], None) if is(2, "providers") && is(4, "locations") => {
                match is(6, "operationResults") {
                    true => Self::Result(id),
                    false
                        if ["operations", "azureAsyncOperation", "operationStatuses"]
                            .iter()
                            .any(|it| is(6, it)) =>
                    {
                        Self::Operation(id)
                    }
                    false => return None,
                }
            }
            _ => {
                let holder = |holder: &HolderType| {
                    holder.path().split_once('/').is_some_and(|(namespace, name)| kind(namespace, name))
                };
                let kind = HolderType::ALL.into_iter().find(holder)?;
                match (rest, group) {
                    ([], group) => Self::Holders { kind, group },
                    ([name], Some(group)) => Self::Holder { kind, group, name },
                    _ => return None,
                }
            }
        };
        Some((place, parts.get(1).copied()))
    }

    pub(super) fn endpoint(self) -> Endpoint {
        match self {
            Self::Endpoints
            | Self::Tenants
            | Self::Subscriptions
            | Self::Subscription
            | Self::ResourceGroups
            | Self::ResourceGroup(_)
            | Self::RoleAssignments { .. }
            | Self::RoleAssignment { .. }
            | Self::RoleDefinitions
            | Self::RoleDefinition(_)
            | Self::Provider(_) => Endpoint::ResourceManager,
            Self::VirtualMachines { .. } | Self::VirtualMachine { .. } => Endpoint::VirtualMachine,
            Self::Identities { .. }
            | Self::Identity { .. }
            | Self::FederatedCredentials { .. }
            | Self::FederatedCredential { .. } => Endpoint::UserAssignedIdentity,
            Self::Holders { .. } | Self::Holder { .. } => Endpoint::IdentityHolder,
            Self::Clusters { .. } | Self::Cluster { .. } => Endpoint::Cluster,
            Self::Servers { .. }
            | Self::Server { .. }
            | Self::Administrators { .. }
            | Self::Administrator { .. }
            | Self::Configurations { .. }
            | Self::Configuration { .. } => Endpoint::FlexibleServer,
            Self::HorizonDbClusters { .. } | Self::HorizonDbCluster { .. } | Self::HorizonDbPart { .. } => {
                Endpoint::HorizonDb
            }
            Self::Operation(_) | Self::Result(_) => Endpoint::Operation,
        }
    }

    /// The operation of Azure's roles that a request takes (Microsoft: resource-provider-operations).
    pub(super) fn action(self, method: &Method) -> String {
        let verb = match *method {
            Method::GET => "read",
            Method::DELETE => "delete",
            _ => "write",
        };
        let below = match self {
            Self::Administrators { .. } | Self::Administrator { .. } => "/administrators",
            Self::Configurations { .. } | Self::Configuration { .. } => "/configurations",
            Self::FederatedCredentials { .. } | Self::FederatedCredential { .. } => {
                "/federatedIdentityCredentials"
            }
            Self::HorizonDbPart { part, .. } => part.below(),
            _ => "",
        };
        format!("{}{below}/{verb}", self.kind())
    }

    /// The type of resource at a place; its provider's versions go for what is below it too.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::ResourceGroups | Self::ResourceGroup(_) => {
                "Microsoft.Resources/subscriptions/resourceGroups"
            }
            Self::VirtualMachines { .. } | Self::VirtualMachine { .. } => "Microsoft.Compute/virtualMachines",
            Self::Identities { .. }
            | Self::Identity { .. }
            | Self::FederatedCredentials { .. }
            | Self::FederatedCredential { .. } => "Microsoft.ManagedIdentity/userAssignedIdentities",
            Self::Holders { kind, .. } | Self::Holder { kind, .. } => kind.path(),
            Self::Clusters { .. } | Self::Cluster { .. } => "Microsoft.ContainerService/managedClusters",
            Self::RoleAssignments { .. } | Self::RoleAssignment { .. } => {
                "Microsoft.Authorization/roleAssignments"
            }
            Self::RoleDefinitions | Self::RoleDefinition(_) => "Microsoft.Authorization/roleDefinitions",
            Self::Servers { .. }
            | Self::Server { .. }
            | Self::Administrators { .. }
            | Self::Administrator { .. }
            | Self::Configurations { .. }
            | Self::Configuration { .. } => "Microsoft.DBforPostgreSQL/flexibleServers",
            Self::HorizonDbClusters { .. } | Self::HorizonDbCluster { .. } | Self::HorizonDbPart { .. } => {
                "Microsoft.HorizonDb/clusters"
            }
            _ => "Microsoft.Resources/subscriptions",
        }
    }
}

/// What is of the provider Microsoft.Authorization, at whatever scope.
fn authorization(path: &str) -> Option<ResourcePath<'_>> {
    const PROVIDER: &str = "/providers/microsoft.authorization/";
    let at = path.to_ascii_lowercase().rfind(PROVIDER)?;
    let (scope, rest) = (path.get(..at)?, path.get(at + PROVIDER.len()..)?);
    let mut rest = rest.split('/').filter(|part| !part.is_empty());
    let kind = rest.next()?.to_ascii_lowercase();
    match (&*kind, rest.next(), rest.next()) {
        ("roleassignments", None, _) => Some(ResourcePath::RoleAssignments { scope }),
        ("roleassignments", Some(name), None) => Some(ResourcePath::RoleAssignment { scope, name }),
        ("roledefinitions", None, _) => Some(ResourcePath::RoleDefinitions),
        ("roledefinitions", Some(name), None) => Some(ResourcePath::RoleDefinition(name)),
        _ => None,
    }
}

impl<'a> HorizonDbPart<'a> {
    fn of(below: &[&'a str]) -> Option<Self> {
        let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
        match below {
            [word] if is(word, "endpoints") => Some(Self::Endpoints),
            [word, method] if is(word, "authentications") => Some(Self::Authentication(method)),
            [word] if is(word, "microsoftEntraAdministrators") => Some(Self::Administrators),
            [word, id] if is(word, "microsoftEntraAdministrators") => Some(Self::Administrator(id)),
            _ => None,
        }
    }

    /// Its part of an operation's name.
    fn below(self) -> &'static str {
        match self {
            Self::Endpoints => "/endpoints",
            Self::Authentication(_) => "/authentications",
            Self::Administrators | Self::Administrator(_) => "/microsoftEntraAdministrators",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_place_in_any_case() {
        let group = "/subscriptions/S/resourcegroups/G/providers";
        for (path, place) in [
            ("/tenants".to_owned(), Some(ResourcePath::Tenants)),
            ("/subscriptions/S".to_owned(), Some(ResourcePath::Subscription)),
            ("/subscriptions/S/resourceGroups/G".to_owned(), Some(ResourcePath::ResourceGroup("G"))),
            (
                format!("{group}/microsoft.compute/VirtualMachines/V"),
                Some(ResourcePath::VirtualMachine { group: "G", name: "V" }),
            ),
            (
                format!("{group}/Microsoft.DBforPostgreSQL/flexibleServers/S/administrators/I"),
                Some(ResourcePath::Administrator { group: "G", server: "S", id: "I" }),
            ),
            (
                format!("{group}/Microsoft.DBforPostgreSQL/flexibleServers/S/configurations/a.b"),
                Some(ResourcePath::Configuration { group: "G", server: "S", name: "a.b" }),
            ),
            (
                format!("{group}/Microsoft.Web/Sites/W"),
                Some(ResourcePath::Holder { kind: HolderType::Site, group: "G", name: "W" }),
            ),
            (
                "/subscriptions/S/providers/Microsoft.Compute/virtualMachineScaleSets".to_owned(),
                Some(ResourcePath::Holders { kind: HolderType::ScaleSet, group: None }),
            ),
            (
                format!(
                    "{group}/Microsoft.ManagedIdentity/userAssignedIdentities/I/federatedIdentityCredentials/F"
                ),
                Some(ResourcePath::FederatedCredential { group: "G", identity: "I", name: "F" }),
            ),
            (
                format!("{group}/Microsoft.ContainerService/managedClusters/C"),
                Some(ResourcePath::Cluster { group: "G", name: "C" }),
            ),
            (
                "/subscriptions/S/providers/Microsoft.App".to_owned(),
                Some(ResourcePath::Provider("Microsoft.App")),
            ),
            (
                format!("{group}/Microsoft.HorizonDB/clusters/H/microsoftEntraAdministrators/I"),
                Some(ResourcePath::HorizonDbPart {
                    group: "G",
                    cluster: "H",
                    part: HorizonDbPart::Administrator("I"),
                }),
            ),
            (
                format!("{group}/Microsoft.Web/sites/W/providers/microsoft.authorization/roleAssignments/R"),
                Some(ResourcePath::RoleAssignment {
                    scope: "/subscriptions/S/resourcegroups/G/providers/Microsoft.Web/sites/W",
                    name: "R",
                }),
            ),
            (
                "/subscriptions/S/providers/Microsoft.Authorization/roleDefinitions".to_owned(),
                Some(ResourcePath::RoleDefinitions),
            ),
            (format!("{group}/Microsoft.Authorization/locks"), None),
            (format!("{group}/Microsoft.HorizonDb/clusters/H/pools"), None),
            (format!("{group}/Microsoft.Web/sites/W/config/web"), None),
            (
                format!("{group}/Microsoft.HybridCompute//machines/M"),
                Some(ResourcePath::Holder { kind: HolderType::ArcServer, group: "G", name: "M" }),
            ),
            (
                "/subscriptions/S/providers/Microsoft.Compute/locations/l/operations/O".to_owned(),
                Some(ResourcePath::Operation("O")),
            ),
            (format!("{group}/Microsoft.DBforPostgreSQL/flexibleServers/S/databases"), None),
            (format!("{group}/Microsoft.Compute/virtualMachines/V/extensions"), None),
            ("/nowhere".to_owned(), None),
            ("//".to_owned(), None),
        ] {
            assert_eq!(ResourcePath::of(&path).map(|(place, _)| place), place, "{path}");
        }
    }
}
