//! The endpoints of the local cloud, and which of them is behind a path.

use std::fmt;

/// Something that answers requests. Faults are aimed at it, and the journal names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// Virtual machine: `/metadata/identity/oauth2/token`.
    ImdsToken,
    /// Virtual machine: `/metadata/identity/info`.
    ImdsInfo,
    /// Virtual machine: `/metadata/instance`.
    ImdsInstance,
    /// App Service, Functions, Container Apps: `/MSI/token`, protocols 2019-08-01 and 2017-09-01.
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
    /// Kubernetes: discovery document of the service account issuer.
    KubernetesConfiguration,
    /// Kubernetes: keys of the service account issuer.
    KubernetesKeys,
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
            Self::KubernetesConfiguration => "kubernetes-configuration",
            Self::KubernetesKeys => "kubernetes-keys",
        })
    }
}
