//! The Azure hosts that a local cloud can be.

use std::fmt;
use std::str::FromStr;

/// An Azure host: where a program runs, and so which identity it has and how it gets tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A virtual machine with a system-assigned identity.
    Vm,
    /// The same machine, with its user-assigned identity.
    UserAssigned,
    /// App Service, Functions or Container Apps.
    AppService,
    /// A pod with workload identity.
    Aks,
    /// A pod with workload identity through an identity binding's token proxy.
    AksBinding,
    /// A Service Fabric application.
    ServiceFabric,
    /// An Azure Machine Learning compute.
    AzureMl,
    /// A workflow at GitHub.
    GithubActions,
    /// A job at Azure Pipelines.
    AzurePipelines,
    /// A server connected through Azure Arc. Only a cloud that was started with it has this host.
    AzureArc,
    /// An application with a client secret.
    ClientSecret,
    /// An application with a certificate.
    ClientCertificate,
    /// The Entra administrator of the server, a person at a Cloud Shell.
    Admin,
}

impl Host {
    /// All hosts.
    pub const ALL: [Host; 13] = [
        Self::Vm,
        Self::UserAssigned,
        Self::AppService,
        Self::Aks,
        Self::AksBinding,
        Self::ServiceFabric,
        Self::AzureMl,
        Self::GithubActions,
        Self::AzurePipelines,
        Self::AzureArc,
        Self::ClientSecret,
        Self::ClientCertificate,
        Self::Admin,
    ];

    /// Its name: a value of `pgentra local env --host` and a key of the status document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::UserAssigned => "user-assigned",
            Self::AppService => "app-service",
            Self::Aks => "aks",
            Self::AksBinding => "aks-binding",
            Self::ServiceFabric => "service-fabric",
            Self::AzureMl => "azure-ml",
            Self::GithubActions => "github-actions",
            Self::AzurePipelines => "azure-pipelines",
            Self::AzureArc => "azure-arc",
            Self::ClientSecret => "client-secret",
            Self::ClientCertificate => "client-certificate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Host {
    type Err = UnknownHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|host| host.name() == text).ok_or(UnknownHost)
    }
}

/// A text that is not the name of a [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host of a local cloud")]
pub struct UnknownHost;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_they_are_written() {
        for host in Host::ALL {
            assert_eq!(host.to_string().parse(), Ok(host));
        }
        assert_eq!("VM".parse::<Host>(), Err(UnknownHost));
    }
}
