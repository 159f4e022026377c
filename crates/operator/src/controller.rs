//! The controller of the resources `PostgresRoles`: while this replica leads, each is looked at when it changes and at its
//! interval.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client};
use pgentra_system::System;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::claims::Claims;
use crate::health::PartHealth;
use crate::lease::LeaderLease;
use crate::reconcile::{ControllerContext, reconcile};
use crate::resource::PostgresRoles;
use crate::roles_metrics::RolesMetrics;
use crate::schedule::Schedule;
use crate::servers::AllowedServers;

/// After an API server that refused a status.
const AGAIN: Duration = Duration::from_secs(5);
/// The time that looks have to end when the process stops. The chart's terminationGracePeriodSeconds is longer.
const GRACE: Duration = Duration::from_secs(20);

/// The controller and what it works with.
pub(crate) struct RolesController {
    pub(crate) client: Client,
    pub(crate) system: System,
    pub(crate) servers: Arc<AllowedServers>,
    pub(crate) lease: LeaderLease,
    /// The name of this replica, in events.
    pub(crate) replica: String,
    /// The most resources that are looked at at the same time.
    pub(crate) concurrency: u16,
    pub(crate) metrics: RolesMetrics,
    pub(crate) health: PartHealth,
}

impl RolesController {
    /// Leads whenever it can, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let standby = |leader: &str| self.health.is_ready(format!("standby: {leader} leads"));
            let Some(asked) = stop.run_until_cancelled(self.lease.acquire(standby)).await else { return };
            tracing::info!("this replica leads");
            self.health.is_ready("leads");
            self.metrics.lead(true);
            // The Lease is renewed while looks end after `stop`.
            let grace = async {
                stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                () = self.lease.hold(asked) => {}
                () = self.control(&stop) => {}
                () = grace => tracing::warn!("a look has not ended in time; what it began is rolled back"),
            }
            self.metrics.lead(false);
            if stop.is_cancelled() {
                match timeout(AGAIN, self.lease.release()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "the Lease is not given back"),
                    Err(_) => tracing::warn!("the Lease is not given back: the API server does not answer"),
                }
                return;
            }
            self.health.is_ready("standby");
        }
    }

    /// Looks at resources until `stop`, and ends when the looks have ended.
    async fn control(&self, stop: &CancellationToken) {
        let stopped = stop.clone().cancelled_owned();
        let controller =
            Controller::new(Api::<PostgresRoles>::all(self.client.clone()), watcher::Config::default())
                .with_config(Config::default().concurrency(self.concurrency))
                .graceful_shutdown_on(stopped);
        let reporter =
            Reporter { controller: "pgentra-operator".to_owned(), instance: Some(self.replica.clone()) };
        let context = ControllerContext {
            client: self.client.clone(),
            system: self.system.clone(),
            servers: self.servers.clone(),
            recorder: Recorder::new(self.client.clone(), reporter),
            metrics: self.metrics.clone(),
            claims: Claims::default(),
            schedule: Schedule::default(),
            store: controller.store(),
        };
        let failed = |_, error: &kube::Error, _| {
            tracing::debug!(%error, "again later");
            Action::requeue(AGAIN)
        };
        let looks = controller.run(reconcile, failed, Arc::new(context));
        looks
            .for_each(|look| async {
                if let Err(error) = look {
                    tracing::warn!(%error, "the API server");
                }
            })
            .await;
    }
}
