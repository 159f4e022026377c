//! From what a person typed to Resource Manager and Graph.

use pgentra_admin::arm::ResourceManager;
use pgentra_admin::graph::Graph;
use pgentra_admin::{Endpoints, InvalidEndpoint};
use pgentra_identity::{Credential, World};

use super::arguments::Azure;
use crate::arguments::Identity;
use crate::problem::{Blame, Outcome, Problem};
use crate::sign_in;

/// Resource Manager in the subscription that is meant.
pub(crate) async fn manager(world: &World, azure: &Azure, caller: &Identity) -> Outcome<ResourceManager> {
    let (credential, endpoints) = asked(world, azure, caller)?;
    let subscription = azure.subscription.clone().or_else(|| world.env().get("AZURE_SUBSCRIPTION_ID"));
    Ok(ResourceManager::new(world, &credential, &endpoints, subscription.as_deref()).await?)
}

/// Microsoft Graph.
pub(crate) fn graph(world: &World, azure: &Azure, caller: &Identity) -> Outcome<Graph> {
    let (credential, endpoints) = asked(world, azure, caller)?;
    Ok(Graph::new(world, &credential, &endpoints))
}

fn asked(world: &World, azure: &Azure, caller: &Identity) -> Outcome<(Credential, Endpoints)> {
    if caller.resource.is_some() {
        return Err(Problem::new(Blame::Usage, "--resource names what tokens for PostgreSQL are for")
            .hint("leave it out: Resource Manager and Graph take tokens of their own"));
    }
    let (credential, _) = sign_in::credential(world, caller)?;
    let given = |flag: &Option<String>, name: &str| flag.clone().or_else(|| world.env().get(name));
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
