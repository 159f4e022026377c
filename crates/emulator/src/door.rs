//! Which endpoint stands behind a path, for each listening socket.

use hyper::StatusCode;
use serde_json::json;

use crate::cloud::{Cloud, TokenOverrides};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::token_proxy::PROXY_PREFIX;
use crate::{
    app_service, azure_arc, cloud_shell, entra, federation, imds, machine_learning, management,
    service_fabric,
};

/// A listening socket, by what it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// All metadata endpoints, each at a path of its own.
    Metadata,
    /// The metadata service's true address, with the endpoints of a virtual machine only.
    LinkLocal,
    /// Entra's token and discovery endpoints.
    Entra,
    /// Issuers of federated assertions.
    Federation,
    /// The node of a Service Fabric cluster.
    ServiceFabric,
    /// The token proxy of AKS identity bindings.
    TokenProxy,
    /// The agent of an Azure Arc server.
    Arc,
    /// Resource Manager and Graph.
    Management,
}

/// How the user agent of the Azure SDK for .NET begins.
const DOTNET: &str = "azsdk-net-";

impl Door {
    /// The request as this socket understands it. At 169.254.169.254 it stays exactly as it came; at a port of the local
    /// cloud's own, what SDKs send to an address in `AZURE_POD_IDENTITY_AUTHORITY_HOST` is made up for:
    ///
    /// - MSAL for Java joins address and path with one slash too many;
    /// - the Azure SDK for .NET first asks without the header `Metadata`, and only where the address is 169.254.169.254
    ///   does it take the status 400 for a metadata service.
    pub(crate) fn received(self, mut call: Call) -> Call {
        if self == Self::Metadata {
            while let Some(at) = call.path.find("//") {
                call.path.remove(at);
            }
            call.is_probe = !call.headers.contains_key("metadata")
                && call.header("user-agent").is_some_and(|agent| agent.starts_with(DOTNET));
        }
        call
    }

    pub(crate) fn endpoint(self, path: &str) -> Option<Endpoint> {
        match self {
            Self::LinkLocal => imds::endpoint(path),
            Self::Metadata => imds::endpoint(path).or(match path {
                "/MSI/token" | "/MSI/token/" | "/msi/token" => Some(Endpoint::AppService),
                "/oauth2/token" => Some(Endpoint::CloudShell),
                machine_learning::PATH => Some(Endpoint::MachineLearning),
                _ => None,
            }),
            Self::Entra => entra::endpoint(path),
            Self::Federation => federation::endpoint(path),
            Self::ServiceFabric => (path == service_fabric::PATH).then_some(Endpoint::ServiceFabric),
            Self::Arc => (path == azure_arc::PATH).then_some(Endpoint::Arc),
            Self::Management => management::endpoint(path),
            Self::TokenProxy => {
                // MSAL for Go and for JavaScript send every request to the proxy, also those for the configuration.
                match path.strip_prefix(PROXY_PREFIX).and_then(entra::endpoint)? {
                    Endpoint::EntraToken => Some(Endpoint::TokenProxy),
                    Endpoint::OpenIdConfiguration => Some(Endpoint::OpenIdConfiguration),
                    _ => None,
                }
            }
        }
    }

    /// The response for a path without an endpoint.
    pub(crate) fn nothing_here(self, call: &Call) -> Answer {
        match self {
            Self::Metadata | Self::LinkLocal => imds::unknown_source(call),
            Self::Management => management::nothing_here(call),
            Self::Entra | Self::Federation | Self::ServiceFabric | Self::TokenProxy | Self::Arc => {
                Answer::text(StatusCode::NOT_FOUND, "")
            }
        }
    }
}

/// The regular response to `call`, without faults.
pub(crate) fn answer(cloud: &Cloud, endpoint: Endpoint, call: &Call, tweaks: &TokenOverrides) -> Answer {
    let answered = match endpoint {
        Endpoint::ImdsToken => imds::token(cloud, call, tweaks),
        Endpoint::ImdsInfo => Ok(imds::info(cloud, call)),
        Endpoint::ImdsInstance => Ok(imds::instance(cloud, call)),
        Endpoint::AppService => app_service::token(cloud, call, tweaks),
        Endpoint::CloudShell => cloud_shell::token(cloud, call, tweaks),
        Endpoint::InstanceDiscovery => Ok(entra::instance_discovery(cloud, call)),
        Endpoint::OpenIdConfiguration => Ok(entra::openid_configuration(cloud, call)),
        Endpoint::Keys => Ok(entra::keys(cloud, call)),
        Endpoint::EntraToken => entra::token(cloud, call, tweaks),
        Endpoint::Authorize => entra::authorize(cloud, call),
        Endpoint::DeviceCode => entra::device_code(cloud, call),
        Endpoint::DeviceAuth => Ok(entra::device_auth(cloud, call)),
        Endpoint::MachineLearning => machine_learning::token(cloud, call, tweaks),
        Endpoint::Arc => azure_arc::token(cloud, call, tweaks),
        Endpoint::ServiceFabric => service_fabric::token(cloud, call, tweaks),
        Endpoint::TokenProxy => entra::proxied_token(cloud, call, tweaks),
        Endpoint::IssuerConfiguration => Ok(federation::configuration(cloud, call)),
        Endpoint::IssuerKeys => federation::keys(cloud, call),
        Endpoint::GitHub => federation::workflow_token(cloud, call),
        Endpoint::Pipelines => federation::connection_token(cloud, call),
        Endpoint::ResourceManager
        | Endpoint::VirtualMachine
        | Endpoint::IdentityHolder
        | Endpoint::Cluster
        | Endpoint::UserAssignedIdentity
        | Endpoint::FlexibleServer
        | Endpoint::HorizonDb
        | Endpoint::Operation => Ok(management::resource_manager(cloud, call)),
        Endpoint::Graph => Ok(management::graph(cloud, call)),
    };
    answered.unwrap_or_else(|failure| broken(&failure))
}

/// The local cloud itself failed: its crypto library did.
fn broken(failure: &KeyError) -> Answer {
    tracing::error!(%failure, "cannot make a response");
    let message = format!("local cloud: {failure}");
    Answer::json(
        StatusCode::INTERNAL_SERVER_ERROR,
        vec![("error", json!("server_error")), ("message", json!(message))],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Parameters;

    #[test]
    fn at_its_true_address_the_metadata_service_is_exact() {
        let probe = || {
            let mut headers = hyper::HeaderMap::new();
            headers.insert("user-agent", "azsdk-net-Core/1.53.0".parse().unwrap());
            let path = "//metadata/identity/oauth2/token".to_owned();
            let (method, query, body) = (hyper::Method::GET, Parameters::default(), bytes::Bytes::new());
            Call { method, path, query, headers, body, is_probe: false }
        };
        let own = Door::Metadata.received(probe());
        assert_eq!((own.is_probe, &*own.path), (true, "/metadata/identity/oauth2/token"));
        for door in [Door::LinkLocal, Door::Arc] {
            let exact = door.received(probe());
            assert_eq!((exact.is_probe, &*exact.path), (false, "//metadata/identity/oauth2/token"));
        }
    }
}
