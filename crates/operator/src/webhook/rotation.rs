//! Makes the certificate, and replaces it before it ends, while the webhook serves.
//!
//! 1. A replica that finds no certificate in the Secret, or one that is due, writes another one. Of two replicas one wins: the
//!    Secret has to be as it was read.
//! 2. Each replica has the API server trust the authorities of the Secret: the new one, and the one before.
//! 3. One round after that was so, it shows the new certificate. Until then, and at replicas that are slower, the certificate
//!    before is valid and trusted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_system::Clock;

use super::certificate::{Bundle, Served, WebhookCertificateError, seconds};
use super::metrics::WebhookMetrics;
use super::store::WebhookStore;
use crate::health::PartHealth;

/// The longest time between two rounds.
const ROUND: Duration = Duration::from_secs(15);
/// Rounds in the life of a short-lived certificate.
const ROUNDS: u32 = 20;
/// The time for one round.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the certificate.
pub(super) struct Rotation {
    store: WebhookStore,
    names: Vec<String>,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    served: Arc<Served>,
    metrics: WebhookMetrics,
    /// The certificate that is shown, as PEM, and its end.
    shown: Option<(String, SystemTime)>,
    /// The certificate that replaces it after the next round.
    trusted: Option<String>,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    #[error(transparent)]
    Certificate(#[from] WebhookCertificateError),
    #[error("the API server took longer than {} s", PATIENCE.as_secs())]
    Slow,
}

impl Rotation {
    pub(super) fn new(
        store: WebhookStore,
        (names, lifetime): (Vec<String>, Duration),
        clock: Arc<dyn Clock>,
        served: Arc<Served>,
        metrics: WebhookMetrics,
    ) -> Self {
        Self { store, names, lifetime, clock, served, metrics, shown: None, trusted: None }
    }

    /// Goes round until it is dropped.
    pub(super) async fn keep(mut self, health: PartHealth) {
        let mut rounds = tokio::time::interval(ROUND.min(self.lifetime / ROUNDS));
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let round = tokio::time::timeout(PATIENCE, self.round()).await;
            match round.unwrap_or(Err(RoundError::Slow)) {
                Ok(()) => health.is_ready("serving"),
                // Another replica was faster; the next round reads what it wrote.
                Err(RoundError::Cluster(kube::Error::Api(error))) if error.is_conflict() => {
                    rounds.reset_immediately();
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the certificate of the webhook is not checked"
                    );
                    // What is shown stays valid for a third of its life.
                    let now = self.clock.now();
                    if self.shown.as_ref().is_none_or(|(_, until)| now >= *until) {
                        health.is_not_ready(format!("no valid certificate: {error}"));
                    }
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        let now = self.clock.now();
        let kept = self.store.read().await?;
        let bundle = match &kept.bundle {
            Some(bundle) if !bundle.is_due(&self.names, now) => bundle.clone(),
            before => {
                let made = Bundle::make(&self.names, self.lifetime, now, before.as_ref())?;
                self.store.replace(kept, &made).await?;
                self.metrics.made_certificate();
                tracing::info!(lifetime = self.lifetime.as_secs(), "made a certificate");
                made
            }
        };
        let was_trusted = self.store.trust(&bundle.authorities).await?;
        let is_settled = was_trusted && self.trusted.as_ref() == Some(&bundle.certificate);
        let (_, until) = bundle.validity()?;
        let shown = self.shown.as_ref().map(|(certificate, _)| certificate);
        if shown.is_none() || is_settled && shown != Some(&bundle.certificate) {
            self.served.set(bundle.certified()?);
            self.metrics.serves_until(seconds(until));
            tracing::info!(until = seconds(until), "shows this certificate");
            self.shown = Some((bundle.certificate.clone(), until));
        }
        self.trusted = Some(bundle.certificate);
        Ok(())
    }
}
