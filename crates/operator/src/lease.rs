//! Which replica leads: a Lease in the API server, as Kubernetes' own controllers hold one.
//!
//! A replica takes the Lease when no replica holds it, or when its holder has not renewed it for as long as the Lease says. That
//! time is measured by the clock of this process from the last change that it has seen: clocks of nodes may differ. The holder
//! gives up earlier than that, so that two replicas never work at the same time (client-go, `tools/leaderelection`).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use pgentra_system::System;
use tokio::time::{Instant, sleep, timeout};

/// How long a Lease that is not renewed keeps others away.
const DURATION: Duration = Duration::from_secs(15);
/// How long the holder works without a renewal.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the Lease, and between two renewals.
const RETRY: Duration = Duration::from_secs(2);

/// The Lease of this program.
#[derive(Clone)]
pub(crate) struct LeaderLease {
    api: Api<Lease>,
    name: String,
    /// The name of this replica.
    holder: String,
    system: System,
}

/// What a replica has seen of the Lease, and when.
struct SeenLease {
    version: Option<String>,
    at: Instant,
}

impl LeaderLease {
    /// The Lease of this name, for a replica with this name.
    pub(crate) fn new(api: Api<Lease>, name: &str, holder: String, system: &System) -> Self {
        Self { api, name: name.to_owned(), holder, system: system.clone() }
    }

    /// Waits until this replica leads. `standby` is told who leads meanwhile. Returns the time before the Lease was asked
    /// for, from which [`LeaderLease::hold`] counts.
    pub(crate) async fn acquire(&self, standby: impl Fn(&str)) -> Instant {
        let mut seen = SeenLease { version: None, at: Instant::now() };
        loop {
            let asked = Instant::now();
            match timeout(DEADLINE, self.take(&mut seen)).await {
                Ok(Ok(None)) => return asked,
                Ok(Ok(Some(leader))) => standby(&leader),
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be taken"),
                Err(_) => tracing::warn!("the API server does not answer"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews the Lease until that fails for too long or another replica holds it. It was asked for at `renewed`: others
    /// count from the time when the API server has written it, which is before its answer is here.
    pub(crate) async fn hold(&self, mut renewed: Instant) {
        loop {
            sleep(RETRY.min(DEADLINE.saturating_sub(renewed.elapsed()))).await;
            let asked = Instant::now();
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            let mut seen = SeenLease { version: None, at: renewed };
            match timeout(left, self.take(&mut seen)).await {
                Ok(Ok(None)) => renewed = asked,
                Ok(Ok(Some(leader))) => {
                    tracing::warn!(leader, "another replica leads");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= DEADLINE {
                tracing::warn!("the Lease could not be renewed in time");
                return;
            }
        }
    }

    /// Gives the Lease back, so that another replica leads at once.
    ///
    /// # Errors
    /// The API server refuses, or this replica does not hold it.
    pub(crate) async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&*self.holder) {
            spec.holder_identity = None;
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// Takes or renews the Lease if this replica may; else returns who holds it. The API server refuses a write of what has
    /// changed since it was read.
    async fn take(&self, seen: &mut SeenLease) -> Result<Option<String>, kube::Error> {
        let now = self.now();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.taken(&LeaseSpec::default(), now)) };
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(None);
        };
        if lease.metadata.resource_version != seen.version {
            *seen = SeenLease { version: lease.metadata.resource_version.clone(), at: Instant::now() };
        }
        let spec = lease.spec.take().unwrap_or_default();
        if let Some(leader) = self.keeps_away(&spec, seen.at.elapsed()) {
            return Ok(Some(leader.to_owned()));
        }
        lease.spec = Some(self.taken(&spec, now));
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(None)
    }

    /// The other holder, if it may still work. The Lease has not changed for this long.
    fn keeps_away<'a>(&self, spec: &'a LeaseSpec, unchanged: Duration) -> Option<&'a str> {
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        (holder != self.holder && unchanged < duration).then_some(holder)
    }

    fn taken(&self, before: &LeaseSpec, now: Option<MicroTime>) -> LeaseSpec {
        let is_new = before.holder_identity.as_deref() != Some(&*self.holder);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_new { now.clone() } else { before.acquire_time.clone() },
            renew_time: now,
            lease_transitions: Some(transitions.saturating_add(i32::from(is_new))),
            ..LeaseSpec::default()
        }
    }

    fn now(&self) -> Option<MicroTime> {
        Timestamp::try_from(self.system.clock().now()).ok().map(MicroTime)
    }
}

#[cfg(test)]
mod tests;
