//! The names of Azure's services, and the ports of this machine that answer to them.

use std::path::PathBuf;

use pgentra_emulator::{ENTRA_NAMES, GRAPH_NAME, LocalAzure, MANAGEMENT_NAME, SERVER_SUFFIX};
use serde::{Deserialize, Serialize};

use crate::local_cloud::SERVER_NAME;

/// The address of the metadata service on Azure.
pub(crate) const METADATA_ADDRESS: &str = "169.254.169.254";
/// PostgreSQL's port on Azure.
const POSTGRES: u16 = 5432;
/// The port of its built-in PgBouncer (Microsoft: concepts-pgbouncer).
const PGBOUNCER: u16 = 6432;

/// What leads a program to the local cloud under the names of Azure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamesStatus {
    /// The file with the certificate of the authority for these names. Its key is in memory only.
    pub certificate: PathBuf,
    /// An empty folder, in which a program's namespace has its files.
    pub folder: PathBuf,
    /// The services.
    pub services: Vec<NamedService>,
}

/// A service under its name on Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedService {
    /// Its name, or its address if it has no name.
    pub name: String,
    /// Its port on Azure.
    pub port: u16,
    /// The port of 127.0.0.1 that answers to the name.
    pub local_port: u16,
}

/// The name of PostgreSQL's host.
pub(crate) fn server_host() -> String {
    format!("{SERVER_NAME}{SERVER_SUFFIX}")
}

/// The services of a cloud whose PostgreSQL and PgBouncer answer to its name at these ports.
pub(crate) fn services(
    azure: &LocalAzure,
    postgres_port: u16,
    pgbouncer_port: Option<u16>,
) -> Vec<NamedService> {
    let Some(names) = azure.azure_names() else { return Vec::new() };
    let service = |name: &str, port, local_port| NamedService { name: name.to_owned(), port, local_port };
    let mut services: Vec<_> =
        ENTRA_NAMES.iter().map(|name| service(name, 443, names.entra_port())).collect();
    services.push(service(MANAGEMENT_NAME, 443, names.management_port()));
    services.push(service(GRAPH_NAME, 443, names.management_port()));
    services.push(service(METADATA_ADDRESS, 80, names.metadata_port()));
    services.push(service(&server_host(), POSTGRES, postgres_port));
    services.extend(pgbouncer_port.map(|port| service(&server_host(), PGBOUNCER, port)));
    services
}
