//! Builds the clients of Resource Manager and Graph from the arguments.

use pgentra_azure::arm::ResourceManager;
use pgentra_azure::graph::Graph;
use pgentra_azure::{Endpoints, InvalidEndpoint};
use pgentra_identity::Credential;
use pgentra_system::System;

use super::arguments::Azure;
use crate::blame::Blame;
use crate::options::Identity;
use crate::problem::{Outcome, Problem};
use crate::sign_in;

/// A client of Resource Manager for the selected subscription.
pub(crate) async fn manager(system: &System, azure: &Azure, caller: &Identity) -> Outcome<ResourceManager> {
    let (credential, endpoints) = asked(system, azure, caller)?;
    let subscription = azure.subscription.clone().or_else(|| system.env().get("AZURE_SUBSCRIPTION_ID"));
    let system = &trusting(system)?;
    Ok(ResourceManager::new(system, &credential, &endpoints, subscription.as_deref()).await?)
}

/// A client of Microsoft Graph.
pub(crate) fn graph(system: &System, azure: &Azure, caller: &Identity) -> Outcome<Graph> {
    let (credential, endpoints) = asked(system, azure, caller)?;
    Ok(Graph::new(&trusting(system)?, &credential, &endpoints))
}

/// Largest file of root certificates in bytes, as for `SSL_CERT_FILE`.
const ROOTS_LIMIT: usize = 4 * 1024 * 1024;

/// The variable with a file of further root certificates, trusted for Resource Manager and Graph
/// only.
pub(crate) const MANAGEMENT_CA: &str = "PGENTRA_MANAGEMENT_CA";

/// A system whose HTTP client also trusts the roots in [`MANAGEMENT_CA`].
pub(crate) fn trusting(system: &System) -> Outcome<System> {
    let Some(path) = system.env().get(MANAGEMENT_CA) else { return Ok(system.clone()) };
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
        Problem::ours("the roots that PGENTRA_MANAGEMENT_CA names cannot be used", error)
            .hint(format!("unset PGENTRA_MANAGEMENT_CA, or put certificates in PEM into {path}"))
    };
    let pem = system.files().read(&path, ROOTS_LIMIT).map_err(|error| unusable(error.into()))?;
    let http = system.http().clone().with_extra_roots(&pem).map_err(|error| unusable(error.into()))?;
    Ok(system.clone().with_http(http))
}

fn asked(system: &System, azure: &Azure, caller: &Identity) -> Outcome<(Credential, Endpoints)> {
    if caller.resource.is_some() {
        return Err(Problem::new(Blame::Usage, "--resource names what tokens for PostgreSQL are for")
            .hint("leave it out: Resource Manager and Graph take tokens of their own"));
    }
    let (credential, _) = sign_in::credential(system, caller)?;
    let given = |flag: &Option<String>, name: &str| flag.clone().or_else(|| system.env().get(name));
    let mut endpoints = Endpoints::of(caller.cloud).map_err(unusable)?;
    if let Some(url) = given(&azure.management_endpoint, "PGENTRA_MANAGEMENT_ENDPOINT") {
        endpoints = endpoints.with_resource_manager(&url).map_err(unusable)?;
    }
    if let Some(url) = given(&azure.graph_endpoint, "PGENTRA_GRAPH_ENDPOINT") {
        endpoints = endpoints.with_graph(&url).map_err(unusable)?;
    }
    Ok((credential, endpoints))
}

fn unusable(error: InvalidEndpoint) -> Problem {
    Problem::new(Blame::Usage, error)
        .hint("such an address is like https://management.azure.com; --cloud knows those of Azure's clouds")
}
