//! What the controller does with one resource: a look, its status, its events, its finalizer.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::Store;
use kube::{Resource as _, ResourceExt as _};
use pgentra_system::System;
use tokio::time::Instant;

use crate::answer::answer;
use crate::claimants::{claimant, full_name};
use crate::claims::Claims;
use crate::condition::{self, PLANNED, READY, Said};
use crate::failure::LookFailure;
use crate::look::{Look, LookOutcome, Looked, PlanSummary};
use crate::resource::{PostgresRoles, PostgresRolesStatus};
use crate::roles_metrics::RolesMetrics;
use crate::schedule::{LookEnd, ResourceState, Schedule, interval};
use crate::servers::AllowedServers;
use crate::status_file::StatusFile;

/// Keeps a resource until its roles are dropped.
const FINALIZER: &str = "pgentra.dev/roles";
/// The interval of a resource whose own cannot be read, which the API server does not let through.
const INTERVAL: Duration = Duration::from_secs(300);

/// What every look shares.
pub(crate) struct ControllerContext {
    pub(crate) client: kube::Client,
    pub(crate) system: System,
    pub(crate) servers: Arc<AllowedServers>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: RolesMetrics,
    pub(crate) claims: Claims,
    pub(crate) schedule: Schedule,
    /// The resources of the cluster.
    pub(crate) store: Store<PostgresRoles>,
}

/// Looks at a resource that is due.
///
/// # Errors
/// The API server does not take the status, the finalizer or an event.
pub(crate) async fn reconcile(
    resource: Arc<PostgresRoles>,
    context: Arc<ControllerContext>,
) -> Result<Action, kube::Error> {
    let uid = resource.uid().unwrap_or_default();
    let is_deleted = resource.meta().deletion_timestamp.is_some();
    let state = ResourceState { generation: resource.metadata.generation, is_deleted };
    let all = context.store.state();
    context.schedule.keep(|uid| all.iter().any(|one| one.meta().uid.as_deref() == Some(uid)));
    if let Some(wait) = context.schedule.wait(&uid, state, Instant::now()) {
        return Ok(Action::requeue(wait));
    }
    let others = all.iter().filter(|other| other.uid() != resource.uid());
    let look = Look {
        resource: &resource,
        servers: &context.servers,
        claims: &context.claims,
        others: others.map(|other| claimant(other, &context.servers)).collect(),
    };
    let file = StatusFile::new(context.client.clone(), &resource);
    let turn = Turn { context: &context, resource: &resource, file };
    let ended = if is_deleted { turn.delete(&look).await? } else { turn.look(&look).await? };
    let Some(ended) = ended else { return Ok(Action::await_change()) };
    let interval = interval(&resource.spec.interval).unwrap_or(INTERVAL);
    let delay = context.schedule.ended(&uid, state, (ended, interval), Instant::now());
    Ok(Action::requeue(delay))
}

/// One resource in its turn.
struct Turn<'a> {
    context: &'a ControllerContext,
    resource: &'a PostgresRoles,
    file: StatusFile,
}

impl Turn<'_> {
    async fn look(&self, look: &Look<'_>) -> Result<Option<LookEnd>, kube::Error> {
        self.keep_finalizer(look.drops_at_deletion()).await?;
        let mut status = self.status();
        let held = status.roles.clone();
        let found = match look.prepare(&mut status).await {
            Ok(prepared) => {
                if status.roles != held {
                    // Before the server is changed: a leader that follows knows whose the roles are.
                    self.file.write(&status).await?;
                }
                look.compare(prepared, &mut status, &self.file).await
            }
            Err(failure) => Err(failure),
        };
        let found = match found {
            Ok(Looked { outcome, not_dropped: None }) => Ok(outcome),
            Ok(Looked { outcome, not_dropped: Some(failure) }) => {
                // What was changed is told beside what could not be.
                self.changed(&outcome, &mut status);
                self.told(&Ok(outcome), &status).await;
                Err(failure)
            }
            Err(failure) => Err(failure),
        };
        if let Ok(outcome) = &found {
            self.changed(outcome, &mut status);
        }
        self.told(&found, &status).await;
        self.conclude(&mut status, &found).await?;
        self.context.metrics.looked(&found);
        Ok(Some(found.err().map_or(LookEnd::Settled, |failure| failure.ended)))
    }

    /// Roles are dropped before the resource goes, where it says so. Another finalizer may keep it longer.
    async fn delete(&self, look: &Look<'_>) -> Result<Option<LookEnd>, kube::Error> {
        if !self.resource.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(None);
        }
        let mut status = self.status();
        let failure = match look.take_back(&mut status).await {
            Ok(drops) => {
                if drops.summary.count() > 0 {
                    self.event(EventType::Normal, "Dropped", "Drop", &drops.summary.line()).await;
                }
                drops.failure
            }
            Err(failure) => Some(failure),
        };
        let Some(failure) = failure else {
            self.keep_finalizer(false).await?;
            return Ok(None);
        };
        let found = Err(failure);
        self.told(&found, &status).await;
        self.conclude(&mut status, &found).await?;
        Ok(found.err().map(|failure| failure.ended))
    }

    /// The status with which a look begins: what an earlier one found is not told as if this one had found it.
    fn status(&self) -> PostgresRolesStatus {
        let before = self.resource.status.clone().unwrap_or_default();
        PostgresRolesStatus { changes: None, plan: Vec::new(), ..before }
    }

    /// The server was changed, if it was.
    fn changed(&self, outcome: &LookOutcome, status: &mut PostgresRolesStatus) {
        if let LookOutcome::Applied(summary) = outcome {
            status.last_changed = Some(Time(self.now()));
            self.context.metrics.changed(summary.count());
        }
    }

    /// Sets the conditions and writes the status.
    async fn conclude(
        &self,
        status: &mut PostgresRolesStatus,
        found: &Result<LookOutcome, LookFailure>,
    ) -> Result<(), kube::Error> {
        let now = Time(self.now());
        let generation = self.resource.metadata.generation;
        let differences = |summary: &PlanSummary| {
            let [add, change, remove] = summary.counts;
            format!("{add} to add, {change} to change, {remove} to remove")
        };
        let as_it_says = "the server is as the resource says";
        let (ready, planned) = match found {
            Ok(LookOutcome::NoDifference) => ((true, "NoDifference", as_it_says.to_owned()), None),
            Ok(LookOutcome::Applied(_)) => ((true, "Applied", as_it_says.to_owned()), None),
            Ok(LookOutcome::Differences(summary)) => {
                let message = format!("{}; the policy is plan", differences(summary));
                ((false, "Differences", message), None)
            }
            // What was compared and could not be changed was compared.
            Err(failure) => {
                let is_planned = status.changes.is_some_and(|changes| changes > 0) && is_of_change(failure);
                let planned = (!is_planned).then(|| (false, failure.reason, failure.message.clone()));
                ((false, failure.reason, failure.message.clone()), planned)
            }
        };
        let planned = planned.unwrap_or_else(|| {
            let count = status.changes.unwrap_or(0);
            let reason = if count == 0 { "NoDifference" } else { "Differences" };
            (true, reason, format!("differences left: {count}"))
        });
        if !planned.0 {
            // It is of another time.
            (status.changes, status.plan) = (None, Vec::new());
        } else {
            status.last_checked = Some(now.clone());
        }
        for (type_, (is, reason, message)) in [(READY, ready), (PLANNED, planned)] {
            let said = Said { is, reason, message: &message };
            condition::set(&mut status.conditions, type_, said, (generation, &now));
        }
        status.observed_generation = generation;
        self.file.write(status).await
    }

    /// Tells what was done and, once, what could not be done.
    async fn told(&self, found: &Result<LookOutcome, LookFailure>, status: &PostgresRolesStatus) {
        let before = condition::find(&status.conditions, READY);
        let is_known = |reason: &str, message: &str| {
            before.is_some_and(|before| before.reason == reason && before.message == message)
        };
        match found {
            Ok(LookOutcome::NoDifference) => {}
            Ok(LookOutcome::Applied(summary)) => {
                // The resource has not changed since the server was as it says: the server has.
                let is_drift = before.is_some_and(|before| {
                    before.status == "True" && before.observed_generation == self.resource.metadata.generation
                });
                let reason = if is_drift { "DriftRepaired" } else { "Applied" };
                tracing::info!(resource = full_name(self.resource), changes = summary.count(), reason);
                self.event(EventType::Normal, reason, "Apply", &summary.line()).await;
            }
            Ok(LookOutcome::Differences(summary)) => {
                let known = self.resource.status.as_ref().map(|status| &status.plan);
                if known != Some(&status.plan) {
                    self.event(EventType::Normal, "Planned", "Plan", &summary.lines.join("; ")).await;
                }
            }
            Err(failure) => {
                let name = full_name(self.resource);
                tracing::warn!(resource = name, reason = failure.reason, message = failure.message);
                if !is_known(failure.reason, &failure.message) {
                    self.event(EventType::Warning, failure.reason, "Reconcile", &failure.message).await;
                }
            }
        }
    }

    /// An event that cannot be written is no reason not to go on.
    async fn event(&self, type_: EventType, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(crate::failure::bounded(note.to_owned())),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = self.resource.object_ref(&());
        if let Err(error) = answer(self.context.recorder.publish(&event, &reference)).await {
            tracing::warn!(%error, resource = full_name(self.resource), reason, "the event is not written");
        }
    }

    /// Adds or removes the finalizer.
    async fn keep_finalizer(&self, keep: bool) -> Result<(), kube::Error> {
        let mut finalizers = self.resource.finalizers().to_vec();
        if finalizers.iter().any(|one| one == FINALIZER) == keep {
            return Ok(());
        }
        match keep {
            true => finalizers.push(FINALIZER.to_owned()),
            false => finalizers.retain(|one| one != FINALIZER),
        }
        // Refused if the resource has changed since it was read: it is looked at again then.
        self.file.write_finalizers(&finalizers).await
    }

    fn now(&self) -> Timestamp {
        Timestamp::try_from(self.context.system.clock().now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Whether the server was read, and only the change failed.
fn is_of_change(failure: &LookFailure) -> bool {
    matches!(
        failure.reason,
        "Refused"
            | "NotGranted"
            | "HalfApplied"
            | "RoleOwnedElsewhere"
            | "RoleInUse"
            | "RoleNotDropped"
            | "StatusNotWritten"
    )
}

#[cfg(test)]
mod tests;
