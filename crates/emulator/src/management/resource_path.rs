//! Which resource a path of the management address names.

use hyper::Method;

use crate::endpoint::Endpoint;

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
    /// Status of an operation: `Azure-AsyncOperation`.
    Operation(&'a str),
    /// Result of an operation: `Location`.
    Result(&'a str),
}

impl<'a> ResourcePath<'a> {
    /// The place and the subscription in its path.
    pub(super) fn of(path: &'a str) -> Option<(Self, Option<&'a str>)> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
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
                _ => return None,
            },
            _ if kind("Microsoft.DBforPostgreSQL", "flexibleServers") => match (rest, group) {
                ([], group) => Self::Servers { group },
                ([name], Some(group)) => Self::Server { group, name },
                ([server, _], Some(group)) if is(at + 4, "administrators") => {
                    Self::Administrators { group, server }
                }
                ([server, _, id], Some(group)) if is(at + 4, "administrators") => {
                    Self::Administrator { group, server, id }
                }
                _ => return None,
            },
            ([_, _, _, _, _, _, _, id], None) if is(2, "providers") && is(4, "locations") => {
                match is(6, "operationResults") {
                    true => Self::Result(id),
                    false if is(6, "operations") || is(6, "azureAsyncOperation") => Self::Operation(id),
                    false => return None,
                }
            }
            _ => return None,
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
            | Self::ResourceGroup(_) => Endpoint::ResourceManager,
            Self::VirtualMachines { .. } | Self::VirtualMachine { .. } => Endpoint::VirtualMachine,
            Self::Identities { .. } | Self::Identity { .. } => Endpoint::UserAssignedIdentity,
            Self::Servers { .. }
            | Self::Server { .. }
            | Self::Administrators { .. }
            | Self::Administrator { .. } => Endpoint::FlexibleServer,
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
            Self::Identities { .. } | Self::Identity { .. } => {
                "Microsoft.ManagedIdentity/userAssignedIdentities"
            }
            Self::Servers { .. }
            | Self::Server { .. }
            | Self::Administrators { .. }
            | Self::Administrator { .. } => "Microsoft.DBforPostgreSQL/flexibleServers",
            _ => "Microsoft.Resources/subscriptions",
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
