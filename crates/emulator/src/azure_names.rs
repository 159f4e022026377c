//! The names of Azure's services: for programs that find the local cloud under them, because their name resolution is
//! another one than the machine's.
//!
//! The certificate authority for these names is made at each start and its key never leaves memory: it is trusted where
//! the names lead to the local cloud, and nowhere else.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::cloud::{Addresses, Cloud};
use crate::options::ServerOptions;
use pgentra_certificates::{Authority, CertificateError};

/// The names of Entra. The first one is in its answers; clients know the others as the same authority
/// (`/common/discovery/instance`).
pub const ENTRA_NAMES: [&str; 4] =
    ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"];
/// The name of Resource Manager.
pub const MANAGEMENT_NAME: &str = "management.azure.com";
/// The name of Microsoft Graph.
pub const GRAPH_NAME: &str = "graph.microsoft.com";
/// What follows the name of a flexible server in its host.
pub const SERVER_SUFFIX: &str = ".postgres.database.azure.com";

/// Where the services answer under their names on Azure, and the authority that signs for the names.
#[derive(Debug)]
pub struct AzureNames {
    pub(crate) authority: Authority,
    pub(crate) metadata_port: u16,
    pub(crate) entra_port: u16,
    pub(crate) management_port: u16,
}

impl AzureNames {
    /// The certificate authority for these names.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Port of 127.0.0.1 of the metadata service exactly as at 169.254.169.254, over HTTP.
    pub fn metadata_port(&self) -> u16 {
        self.metadata_port
    }

    /// Port of 127.0.0.1 of Entra as [`ENTRA_NAMES`], over HTTPS.
    pub fn entra_port(&self) -> u16 {
        self.entra_port
    }

    /// Port of 127.0.0.1 of Resource Manager as [`MANAGEMENT_NAME`] and of Graph as [`GRAPH_NAME`], over HTTPS.
    pub fn management_port(&self) -> u16 {
        self.management_port
    }
}

/// The TLS configuration of Entra, Resource Manager and Graph under these names.
pub(crate) fn server_config(authority: &Authority) -> Result<Arc<ServerConfig>, CertificateError> {
    let names: Vec<&str> = ENTRA_NAMES.into_iter().chain([MANAGEMENT_NAME, GRAPH_NAME]).collect();
    authority.issue(&names)?.server_config(&[b"http/1.1"])
}

impl Cloud {
    /// The same cloud, whose answers name Azure's own addresses.
    pub(crate) fn under_azure_names(&self) -> Self {
        let addresses = Addresses {
            authority: format!("https://{}/", ENTRA_NAMES[0]),
            management: format!("https://{MANAGEMENT_NAME}"),
            graph: format!("https://{GRAPH_NAME}"),
            ..self.addresses.clone()
        };
        let names = ENTRA_NAMES.into_iter().chain([MANAGEMENT_NAME, GRAPH_NAME]).map(str::to_owned);
        Self {
            addresses,
            host_names: names.chain(self.host_names.iter().cloned()).collect(),
            server_host: self.state.server.as_ref().map(host_of).unwrap_or_default(),
            state: self.state.clone(),
        }
    }
}

fn host_of(server: &ServerOptions) -> String {
    format!("{}{SERVER_SUFFIX}", server.name)
}
