//! The variables that make a program believe it runs on a host of some kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::cloud::LocalCloud;
use crate::arguments::Host;

/// The files of a local cloud that programs read.
pub(crate) struct Places {
    /// The local authority's certificate.
    pub(crate) certificate: PathBuf,
    /// The pod's service account token.
    pub(crate) pod_token: PathBuf,
}

impl Places {
    /// Below the cloud's folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { certificate: folder.join("ca.pem"), pod_token: folder.join("azure-identity-token") }
    }
}

/// Everything that libpq, the Azure SDKs and pgentra need on `host`.
pub(crate) fn of(host: Host, cloud: &LocalCloud) -> BTreeMap<String, String> {
    let azure = cloud.azure();
    let places = Places::new(cloud.folder());
    let certificate = places.certificate.display().to_string();
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
    set("PGHOST", "localhost");
    set("PGPORT", &cloud.port().to_string());
    set("PGDATABASE", "postgres");
    set("PGUSER", role(host, cloud));
    set("PGSSLMODE", "verify-full");
    set("PGSSLROOTCERT", &certificate);
    // Node.js adds these to its own; only programs that talk to the local authority need them.
    set("NODE_EXTRA_CA_CERTS", &certificate);
    match host {
        Host::Vm => set("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url()),
        Host::UserAssigned => {
            set("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url());
            set("AZURE_CLIENT_ID", &azure.user_assigned().client_id().to_string());
        }
        Host::AppService => {
            let service = azure.app_service();
            set("IDENTITY_ENDPOINT", &service.endpoint);
            set("IDENTITY_HEADER", service.header.expose_secret());
        }
        Host::Aks => {
            set("AZURE_CLIENT_ID", &azure.user_assigned().client_id().to_string());
            set("AZURE_TENANT_ID", &azure.tenant().to_string());
            set("AZURE_FEDERATED_TOKEN_FILE", &places.pod_token.display().to_string());
            set("AZURE_AUTHORITY_HOST", azure.authority_host());
            // OpenSSL and Python's requests take these instead of the system's roots.
            set("SSL_CERT_FILE", &certificate);
            set("REQUESTS_CA_BUNDLE", &certificate);
        }
        Host::Admin => set("MSI_ENDPOINT", azure.cloud_shell()),
    }
    variables
}

/// The database role that is mapped to the identity of `host`.
pub(crate) fn role(host: Host, cloud: &LocalCloud) -> &str {
    let azure = cloud.azure();
    match host {
        Host::Vm | Host::AppService => azure.vm().name(),
        Host::UserAssigned | Host::Aks => azure.user_assigned().name(),
        Host::Admin => azure.administrator().user_principal_name(),
    }
}
