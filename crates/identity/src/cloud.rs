use std::fmt;
use std::str::FromStr;

use crate::Resource;

/// One of Azure's clouds: which resource PostgreSQL tokens are for, which Entra authority gives them, and how the host
/// names of its database servers end.
///
/// The default is [`Cloud::Public`]. A private cloud is reached with an explicit [`Resource`] and authority instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cloud {
    /// The worldwide cloud, `login.microsoftonline.com`; the default.
    #[default]
    Public,
    /// Azure US Government, `login.microsoftonline.us`.
    UsGov,
    /// Azure in China, operated by 21Vianet, `login.chinacloudapi.cn`.
    China,
}

impl Cloud {
    /// Every cloud this version knows.
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGov, Self::China];

    /// The resource of Azure Database for PostgreSQL (azure-cli, `ossrdbms_resource_id` of each cloud).
    pub fn postgres_resource(&self) -> Resource {
        Resource::from_static(match self {
            Self::Public => "https://ossrdbms-aad.database.windows.net",
            Self::UsGov => "https://ossrdbms-aad.database.usgovcloudapi.net",
            Self::China => "https://ossrdbms-aad.database.chinacloudapi.cn",
        })
    }

    /// Entra's address in this cloud, an https URL with a trailing slash.
    pub fn authority_host(&self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com/",
            Self::UsGov => "https://login.microsoftonline.us/",
            Self::China => "https://login.chinacloudapi.cn/",
        }
    }

    /// How the host names of database servers end, without a leading dot.
    pub fn host_suffix(&self) -> &'static str {
        match self {
            Self::Public => "postgres.database.azure.com",
            Self::UsGov => "postgres.database.usgovcloudapi.net",
            Self::China => "postgres.database.chinacloudapi.cn",
        }
    }

    /// The address of Azure Resource Manager, an https URL without a slash at its end; also the resource of its tokens
    /// (azure-cli, `resource_manager` of each cloud).
    pub fn resource_manager(&self) -> &'static str {
        match self {
            Self::Public => "https://management.azure.com",
            Self::UsGov => "https://management.usgovcloudapi.net",
            Self::China => "https://management.chinacloudapi.cn",
        }
    }

    /// The address of Microsoft Graph, an https URL without a slash at its end; also the resource of its tokens
    /// (azure-cli, `microsoft_graph_resource_id` of each cloud).
    pub fn graph(&self) -> &'static str {
        match self {
            Self::Public => "https://graph.microsoft.com",
            Self::UsGov => "https://graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }

    /// The audience of a federated assertion in this cloud (Microsoft: workload identity federation, "Important
    /// considerations and restrictions").
    pub fn federation_audience(&self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::UsGov => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::UsGov => "usgov",
            Self::China => "china",
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Cloud {
    type Err = UnknownCloud;

    fn from_str(text: &str) -> Result<Self, UnknownCloud> {
        Self::ALL.into_iter().find(|cloud| cloud.name() == text).ok_or(UnknownCloud)
    }
}

/// A text that names no [`Cloud`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such cloud: public, usgov and china are known")]
pub struct UnknownCloud;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cloud_is_whole_and_parses_back() {
        for cloud in Cloud::ALL {
            assert_eq!(cloud.to_string().parse::<Cloud>().unwrap(), cloud);
            assert!(cloud.authority_host().starts_with("https://") && cloud.authority_host().ends_with('/'));
            assert!(cloud.postgres_resource().as_str().starts_with("https://ossrdbms-aad.database."));
            for url in [cloud.resource_manager(), cloud.graph()] {
                assert!(
                    url.starts_with("https://") && !url.ends_with('/') && url.parse::<Resource>().is_ok()
                );
            }
            assert!(cloud.host_suffix().starts_with("postgres.database."));
        }
        assert!("Public".parse::<Cloud>().is_err());
    }
}
