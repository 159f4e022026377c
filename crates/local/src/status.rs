//! The status of a local cloud: the document of `pgentra local status -o json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::azure_names::{self, NamesStatus};
use crate::environment::{self, DATABASE};
use crate::identities::{IdentityStatus, identities};
use crate::local_cloud::LocalCloud;
use crate::pgbouncer::CloudPgBouncer;

/// The status of a local cloud.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its name, `default` if none was given.
    pub name: String,
    /// A new value with each start, which reveals the environment of an earlier run.
    #[serde(default)]
    pub instance: String,
    /// `flexible` or `single`.
    pub flavour: String,
    /// The id of the process that runs it.
    pub pid: u32,
    /// When it was ready, in seconds since 1970 by this machine's clock.
    #[serde(default)]
    pub started: u64,
    /// The folder, which is removed at the stop.
    pub folder: PathBuf,
    /// The file into which the state is written at the stop. `None`: it is lost.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// The address for PostgreSQL clients.
    pub server: ServerStatus,
    /// The URL of the page for people. Empty: a local cloud of an earlier version has none.
    #[serde(default)]
    pub page: String,
    /// The URL of the metadata service, as on a VM.
    pub metadata_url: String,
    /// The URL of the Entra authority.
    pub authority_host: String,
    /// The URL of Resource Manager and Graph.
    pub management_url: String,
    /// The id of the Entra tenant.
    pub tenant_id: String,
    /// The id of the VM's subscription.
    pub subscription_id: String,
    /// Identities by name, with the database role that is mapped to each.
    pub identities: Vec<IdentityStatus>,
    /// The names of Azure and the ports that answer to them. `None`: a local cloud of an earlier
    /// version does not know them.
    #[serde(default)]
    pub azure_names: Option<NamesStatus>,
    /// The variables for each kind of host.
    pub environments: BTreeMap<String, BTreeMap<String, String>>,
}

/// The address for PostgreSQL clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// `localhost`.
    pub host: String,
    /// The port of the gateway.
    pub port: u16,
    /// The port of the built-in PgBouncer, which listens while the server parameter `pgbouncer.enabled` is `true`. `None`:
    /// Single Server and local clouds of earlier versions have none.
    #[serde(default)]
    pub pgbouncer_port: Option<u16>,
    /// The database to connect to.
    pub database: String,
    /// PostgreSQL's version, such as "17.5".
    pub version: String,
    /// The file with the certificate of the local authority.
    pub sslrootcert: PathBuf,
}

impl Status {
    /// Describes a cloud of this process. Each call gives another [`Status::instance`].
    pub fn of(cloud: &LocalCloud) -> Self {
        let azure = cloud.azure();
        let instance = Uuid::new_v4().to_string();
        let mut environments = environment::all(&cloud.view());
        for variables in environments.values_mut() {
            let folder = cloud.folder().display().to_string();
            for (variable, value) in [
                (environment::NAME_VARIABLE, cloud.name()),
                (environment::FOLDER_VARIABLE, &folder),
                (environment::INSTANCE_VARIABLE, &instance),
            ] {
                variables.insert(variable.to_owned(), value.to_owned());
            }
        }
        Self {
            name: cloud.name().to_owned(),
            instance,
            flavour: cloud.flavour().to_string(),
            pid: std::process::id(),
            started: cloud.started().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            folder: cloud.folder().to_path_buf(),
            state: cloud.state_file().map(Path::to_path_buf),
            server: ServerStatus {
                host: "localhost".to_owned(),
                port: cloud.postgres_addr().port(),
                pgbouncer_port: cloud.pgbouncer_port(),
                database: DATABASE.to_owned(),
                version: cloud.postgres_version().to_owned(),
                sslrootcert: cloud.files().certificate,
            },
            page: cloud.page_url(),
            metadata_url: azure.metadata_url().to_owned(),
            authority_host: azure.authority_host().to_owned(),
            management_url: azure.resource_manager().to_owned(),
            tenant_id: azure.tenant().to_string(),
            subscription_id: azure.subscription().to_string(),
            identities: identities(azure),
            azure_names: Some(NamesStatus {
                certificate: cloud.files().azure_certificate,
                folder: cloud.files().namespace,
                services: azure_names::services(
                    azure,
                    cloud.named_gateway.address.port(),
                    cloud.pgbouncer.as_ref().map(CloudPgBouncer::named_port),
                ),
            }),
            environments,
        }
    }
}
