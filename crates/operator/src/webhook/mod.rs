//! The admission webhook: an API server asks about a pod, and gets the sidecar as a patch.
//!
//! Each replica answers. They share a certificate, which the first one that needs it makes ([`rotation`]); no other program
//! takes part in that.

mod certificate;
mod limits;
mod metrics;
mod rotation;
mod serve;
mod store;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kube::Client;
use pgentra_injection::{InvalidSidecar, Sidecar};
use pgentra_system::Clock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::PartsHealth;
use metrics::WebhookMetrics;
use rotation::Rotation;
use serve::Answering;
use store::WebhookStore;

/// What the webhook is told. Without an address there is none.
#[derive(Debug, Args)]
pub(crate) struct WebhookArguments {
    /// Address at which the API server asks about pods, over TLS.
    #[arg(long, value_name = "ADDRESS", group = "parts", requires_all = ["sidecar", "webhook_service", "webhook_secret", "webhook_configuration"])]
    pub(crate) webhook_listen: Option<SocketAddr>,
    /// Service in front of the replicas, in their namespace.
    #[arg(long, value_name = "NAME", default_value = "")]
    webhook_service: String,
    /// Secret in which the replicas share the certificate; it exists already.
    #[arg(long, value_name = "NAME", default_value = "")]
    webhook_secret: String,
    /// `MutatingWebhookConfiguration` whose `caBundle` is kept.
    #[arg(long, value_name = "NAME", default_value = "")]
    webhook_configuration: String,
    /// Life of a certificate in seconds; it is replaced after two thirds of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 90 * 24 * 3600, value_parser = clap::value_parser!(u32).range(30..=31_536_000))]
    webhook_certificate_lifetime: u32,
    /// The sidecar as JSON: image, imagePullPolicy, resources, env, volumes, volumeMounts, hostAliases.
    #[arg(long, value_name = "JSON", value_parser = sidecar)]
    sidecar: Option<Sidecar>,
}

fn sidecar(text: &str) -> Result<Sidecar, InvalidSidecar> {
    Sidecar::from_json(text)
}

/// Starts the webhook on a listener: `parts` gets its tasks, which end after `stop`.
pub(crate) fn start(
    listener: TcpListener,
    arguments: WebhookArguments,
    (client, clock): (Client, Arc<dyn Clock>),
    health: &PartsHealth,
    (parts, stop): (&TaskTracker, &CancellationToken),
) {
    let Some(sidecar) = arguments.sidecar else { return };
    let metrics = WebhookMetrics::default();
    health.register(|registry| metrics.register(registry));
    let store = WebhookStore::new(&client, arguments.webhook_secret, arguments.webhook_configuration);
    let lifetime = Duration::from_secs(arguments.webhook_certificate_lifetime.into());
    let names = certificate::names(&arguments.webhook_service, client.default_namespace());
    let served = Arc::new(certificate::Served::default());
    let rotation = Rotation::new(store, (names, lifetime), clock, served.clone(), metrics.clone());
    parts.spawn(stop.clone().run_until_cancelled_owned(rotation.keep(health.part("certificate"))));
    let answering = Answering::new(client, sidecar, metrics);
    parts.spawn(serve::serve(listener, answering, served, stop.clone()));
}
