use std::fmt;
use std::str::FromStr;

/// The places a token can come from. `Display` and `FromStr` use the kebab-case names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SourceName {
    /// `imds`: the instance metadata service of a virtual machine, scale set, AKS node or container instance.
    Imds,
    /// `app-service`: App Service, Functions and Container Apps, protocol 2019-08-01.
    AppService,
    /// `app-service-2017`: the older App Service protocol, 2017-09-01.
    AppService2017,
    /// `azure-arc`: a server outside Azure, connected through Azure Arc.
    AzureArc,
    /// `service-fabric`: an application on a Service Fabric cluster.
    ServiceFabric,
    /// `cloud-shell`: Azure Cloud Shell; the token is the signed-in user's.
    CloudShell,
    /// `azure-ml`: a compute of Azure Machine Learning.
    AzureMl,
    /// `workload-identity`: a federated service account token, on AKS or any cluster with an OIDC issuer.
    WorkloadIdentity,
    /// `github-actions`: the OIDC token of a GitHub Actions job, exchanged at Entra.
    GitHubActions,
    /// `azure-pipelines`: the OIDC token of an Azure Pipelines service connection, exchanged at Entra.
    AzurePipelines,
    /// `client-secret`: an application with a secret.
    ClientSecret,
    /// `client-certificate`: an application with a certificate.
    ClientCertificate,
    /// `azure-cli`: the user who is signed in to `az`.
    AzureCli,
    /// `azure-developer-cli`: the user who is signed in to `azd`.
    AzureDeveloperCli,
    /// `exec`: a command of the user's that prints a token.
    Exec,
    /// `external`: a source handed in by the program.
    External,
}

impl SourceName {
    /// Every source this version knows, in no particular order.
    pub const ALL: [Self; 16] = [
        Self::Imds,
        Self::AppService,
        Self::AppService2017,
        Self::AzureArc,
        Self::ServiceFabric,
        Self::CloudShell,
        Self::AzureMl,
        Self::WorkloadIdentity,
        Self::GitHubActions,
        Self::AzurePipelines,
        Self::ClientSecret,
        Self::ClientCertificate,
        Self::AzureCli,
        Self::AzureDeveloperCli,
        Self::Exec,
        Self::External,
    ];

    /// Whether it is a developer tool, which has a signed-in user.
    pub(crate) fn is_developer_tool(self) -> bool {
        matches!(self, Self::AzureCli | Self::AzureDeveloperCli | Self::Exec)
    }

    /// The kebab-case name, such as `azure-cli`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::AppService => "app-service",
            Self::AppService2017 => "app-service-2017",
            Self::AzureArc => "azure-arc",
            Self::ServiceFabric => "service-fabric",
            Self::CloudShell => "cloud-shell",
            Self::AzureMl => "azure-ml",
            Self::WorkloadIdentity => "workload-identity",
            Self::GitHubActions => "github-actions",
            Self::AzurePipelines => "azure-pipelines",
            Self::ClientSecret => "client-secret",
            Self::ClientCertificate => "client-certificate",
            Self::AzureCli => "azure-cli",
            Self::AzureDeveloperCli => "azure-developer-cli",
            Self::Exec => "exec",
            Self::External => "external",
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SourceName {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(UnknownSource)
    }
}

/// A text that names no [`SourceName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such token source")]
pub struct UnknownSource;

/// Why a source does not apply here, in words that complete "it does not apply here: …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// A reason in words that complete "it does not apply here: …".
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The words, as `Display` writes them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for name in SourceName::ALL {
            assert_eq!(name.to_string().parse::<SourceName>().unwrap(), name);
        }
        assert!("IMDS".parse::<SourceName>().is_err());
    }
}
