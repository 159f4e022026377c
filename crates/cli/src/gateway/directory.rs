//! Microsoft Graph as the gateway's directory, asked with the identity of the host.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pgentra_azure::graph::{Graph, Search};
use pgentra_azure::{AzureError, AzureErrorKind, Endpoints};
use pgentra_gateway::{DirectoryPrincipal, PrincipalDirectory, QuestionError};
use pgentra_gateway_config::DirectorySource;
use pgentra_identity::{Cloud, IdentityOptions};
use pgentra_session::login_error::chain;
use pgentra_system::System;
use uuid::Uuid;

use crate::identity::azure::trusting;

/// Graph, and the cloud's address of it unless `PGENTRA_GRAPH_ENDPOINT` names another.
pub(crate) fn source() -> DirectorySource {
    DirectorySource::new(|system, cloud| {
        let graph = graph(system, cloud)?;
        Ok(Arc::new(GraphDirectory(graph)))
    })
}

fn graph(system: &System, cloud: pgentra_verify::Cloud) -> Result<Graph, String> {
    let cloud = match cloud {
        pgentra_verify::Cloud::UsGov => Cloud::UsGov,
        pgentra_verify::Cloud::China => Cloud::China,
        _ => Cloud::Public,
    };
    let options = IdentityOptions { cloud, ..IdentityOptions::default() };
    let credential = options.credential(system).map_err(|error| error.to_string())?;
    let mut endpoints = Endpoints::of(cloud).map_err(|error| error.to_string())?;
    if let Some(url) = system.env().get("PGENTRA_GRAPH_ENDPOINT") {
        endpoints = endpoints.with_graph(&url).map_err(|error| error.to_string())?;
    }
    let system = trusting(system).map_err(|problem| problem.chain())?;
    Ok(Graph::new(&system, &credential, &endpoints))
}

struct GraphDirectory(Graph);

impl PrincipalDirectory for GraphDirectory {
    fn member_of<'a>(
        &'a self,
        who: DirectoryPrincipal,
        groups: &'a [Uuid],
    ) -> BoxFuture<'a, Result<Vec<Uuid>, QuestionError>> {
        async move { self.0.member_of(who.object_id, groups).await.map_err(unanswered) }.boxed()
    }

    fn is_enabled(&self, who: DirectoryPrincipal) -> BoxFuture<'_, Result<bool, QuestionError>> {
        let search = if who.is_service { Search::ServicePrincipals } else { Search::Users };
        async move {
            let enabled = self.0.is_enabled(search, who.object_id).await.map_err(unanswered)?;
            Ok(enabled.unwrap_or(false))
        }
        .boxed()
    }
}

/// The log has the hint behind the causes.
fn unanswered(error: AzureError) -> QuestionError {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    let why = format!("{}{hint}", chain(&error)).into();
    match error.kind() {
        AzureErrorKind::Token
        | AzureErrorKind::Network
        | AzureErrorKind::Forbidden
        | AzureErrorKind::Throttled => QuestionError::Unavailable(why),
        _ => QuestionError::Refused(why),
    }
}
