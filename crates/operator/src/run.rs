//! `pgentra-operator run`: from start to end.

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use pgentra_identity::IdentityOptions;
use pgentra_observe::http::{HttpServer, Scope};
use pgentra_system::System;
use prometheus_client::metrics::info::Info;
use rand::Rng as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::answer;
use crate::arguments::{RolesArguments, RunArguments};
use crate::controller::RolesController;
use crate::error::OperatorError;
use crate::health::{PartHealth, PartsHealth};
use crate::lease::LeaderLease;
use crate::roles_metrics::RolesMetrics;
use crate::servers::{self, AllowedServers};
use crate::webhook;

/// The time limit of a token request: a resource is looked at again after a failure.
const TOKEN: Duration = Duration::from_secs(30);

/// Between two questions to an API server that does not answer.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs every part until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start: a listener, the access to the cluster.
pub(crate) async fn run(system: &System, arguments: RunArguments) -> Result<(), OperatorError> {
    let client = kube::Client::try_default().await.map_err(OperatorError::Cluster)?;
    let stop = CancellationToken::new();
    let health = PartsHealth::new(stop.clone());
    health.register(|registry| {
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the operator", version);
    });
    let address = arguments.health_listen;
    let unbound = |source| OperatorError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(unbound)?;
    let probes = HttpServer::new(listener, Scope::Health, health.clone()).map_err(unbound)?;
    // Probes are answered until every part has ended.
    let ended = CancellationToken::new();
    let probing = tokio::spawn(probes.serve(ended.clone()));

    let parts = TaskTracker::new();
    parts.spawn(stop.clone().run_until_cancelled_owned(meet(client.clone(), health.part("cluster"))));
    if let Some(address) = arguments.webhook.webhook_listen {
        let unbound = |source| OperatorError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(unbound)?;
        let of_process = (client.clone(), system.clock().clone());
        webhook::start(listener, arguments.webhook, of_process, &health, (&parts, &stop));
    }
    if arguments.roles {
        let controller = roles(system, client.clone(), (&arguments.roles_arguments, &health))?;
        parts.spawn(controller.run(stop.clone()));
    }
    parts.close();

    let mut terminate = signal(SignalKind::terminate()).map_err(OperatorError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(OperatorError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    parts.wait().await;
    ended.cancel();
    // It does not panic, and nothing aborts it.
    let _ = probing.await;
    Ok(())
}

/// The controller of PostgresRoles.
fn roles(
    system: &System,
    client: kube::Client,
    (arguments, health): (&RolesArguments, &PartsHealth),
) -> Result<RolesController, OperatorError> {
    let identity =
        IdentityOptions { cloud: arguments.cloud, token_timeout: TOKEN, ..IdentityOptions::default() };
    let roots = arguments.root_certificates.as_deref().map(|file| {
        servers::roots(file, system.files())
            .map_err(|source| OperatorError::Roots { file: file.to_owned(), source })
    });
    let servers = AllowedServers::new(system, &identity, arguments.server.clone(), roots.transpose()?)
        .map_err(OperatorError::Identity)?;
    // The name of a pod is its host name. A container that starts again in it is another replica.
    let host = system.env().get("HOSTNAME").unwrap_or_else(|| "pgentra-operator".to_owned());
    let replica = format!("{host}_{:08x}", rand::rng().random::<u32>());
    let leases = Api::default_namespaced(client.clone());
    let metrics = RolesMetrics::default();
    health.register(|registry| metrics.register(registry));
    Ok(RolesController {
        client,
        system: system.clone(),
        servers: Arc::new(servers),
        lease: LeaderLease::new(leases, &arguments.lease, replica.clone(), system),
        replica,
        concurrency: arguments.concurrency,
        metrics,
        health: health.part("roles"),
    })
}

/// Ready as soon as the API server has answered. It may be gone later: each part then says what it lacks.
async fn meet(client: kube::Client, health: PartHealth) {
    loop {
        match answer(client.apiserver_version()).await {
            Ok(version) => {
                tracing::info!(version = version.git_version, "the API server answers");
                return health.is_ready(format!("Kubernetes {}", version.git_version));
            }
            Err(error) => {
                tracing::warn!(%error, "the API server does not answer");
                health.is_not_ready(format!("the API server does not answer: {error}"));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
