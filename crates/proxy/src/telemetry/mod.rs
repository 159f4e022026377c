//! Telemetry of a proxy: metrics, the last errors, and the audit log.
//!
//! A [`Telemetry`] is for a process, a [`TargetTelemetry`] for one of its targets: an [`AuthProxy`](crate::AuthProxy)
//! takes one and tells it what happens. Nothing of a token gets here.

mod audit;
mod connect_with;
mod connection;
mod counts;
mod ended;
mod history;
mod live;
mod metrics;
mod names;
mod outcome;
mod problems;
mod process;
mod standing;
mod status;
mod target;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use connect_with::ClientAccess;
pub(crate) use connection::ConnectionRecord;
pub(crate) use counts::Cancelled;
pub use counts::PoolStats;
pub(crate) use ended::Ended;
pub(crate) use names::SignIn;
pub use pgentra_observe::{AuditLog, OpenLog};
pub use standing::Summary;
pub use target::TargetTelemetry;
pub(crate) use target::{Listening, PoolControl};

use problems::RefusedClients;
use process::Process;

/// The telemetry of a process. Cheap to clone; clones share one state.
#[derive(Clone)]
pub struct Telemetry {
    process: Arc<Process>,
    targets: Arc<Mutex<Vec<Weak<TargetTelemetry>>>>,
}

impl Telemetry {
    /// The telemetry of a process that starts now. `clock` is the time of day; `stop` is cancelled
    /// when the process is to end. Sessions are written to `audit` if there is one.
    pub fn new(
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
        stop: CancellationToken,
        audit: Option<AuditLog>,
    ) -> Self {
        let process = Process {
            began: clock(),
            instance: Uuid::new_v4(),
            clock: Box::new(clock),
            stop,
            started: AtomicBool::new(false),
            problems: RefusedClients::default(),
            audit,
            sessions: AtomicU64::new(0),
        };
        Self { process: Arc::new(process), targets: Arc::default() }
    }

    /// The telemetry of a target, under its name in metrics and audit lines. Callers with the same
    /// name share one, so that a target goes on counting over a reload. It is removed when the last
    /// holder drops it.
    pub fn target(&self, name: &str) -> Arc<TargetTelemetry> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|target| target.strong_count() > 0);
        if let Some(known) = targets.iter().filter_map(Weak::upgrade).find(|target| target.name() == name) {
            return known;
        }
        let target = Arc::new(TargetTelemetry::new(name, Arc::clone(&self.process)));
        targets.push(Arc::downgrade(&target));
        target
    }

    /// Records that every listener is up.
    pub fn started(&self) {
        self.process.started.store(true, Ordering::Release);
    }

    /// The audit log, if there is one.
    pub fn audit(&self) -> Option<&AuditLog> {
        self.process.audit()
    }

    pub(crate) fn has_started(&self) -> bool {
        self.process.started.load(Ordering::Acquire)
    }

    /// The token that stops the process.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.process.stop
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.process.now()
    }

    pub(crate) fn targets(&self) -> Vec<Arc<TargetTelemetry>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether clients are to be sent here: the first request for a token has been answered for
    /// every target, and at least one target has a token and a listener. A server that is down does
    /// not count: this proxy reports the reason to its clients, and without the proxy they would
    /// get none. Nor does a failing target count while another one works. [`Telemetry::summary`]
    /// names them.
    ///
    /// # Errors
    ///
    /// The reason in words: a token or a listener is missing, or the process drains.
    pub fn readiness(&self) -> Result<(), String> {
        if self.stop().is_cancelled() {
            return Err("draining: no new clients are let in".to_owned());
        }
        if !self.has_started() {
            return Err("starting: the listeners are not up yet".to_owned());
        }
        let now = self.now();
        let lacks: Vec<_> = self.targets().iter().map(|target| target.readiness(now)).collect();
        if let Some(pending) =
            lacks.iter().filter_map(|lack| lack.as_ref().err()).find(|lack| lack.is_pending)
        {
            return Err(pending.to_string());
        }
        let is_none_ready = !lacks.is_empty() && lacks.iter().all(Result::is_err);
        match lacks.into_iter().find_map(Result::err).filter(|_| is_none_ready) {
            Some(lack) => Err(lack.to_string()),
            None => Ok(()),
        }
    }

    /// How many targets serve, are idle and fail, and why each failing one fails.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.targets(), self.now())
    }

    /// Ends the pooled sessions of this database, or of all databases, of every target. Returns
    /// their number.
    pub(crate) async fn close_kept(&self, database: Option<&str>) -> usize {
        let targets = self.targets();
        join_all(targets.iter().map(|target| target.close_kept(database))).await.into_iter().sum()
    }

    /// Waits until there is a token for every target, at most for `limit`. Returns at once if no
    /// clients are accepted anyway. The requests go on after it returns.
    pub async fn await_tokens(&self, limit: Duration) {
        if self.stop().is_cancelled() || !self.has_started() {
            return;
        }
        let connectors: Vec<_> = self.targets().iter().filter_map(|target| target.connector()).collect();
        let ready = async {
            for connector in connectors {
                if let Err(error) = connector.token_ready().await {
                    tracing::debug!(%error, "no token yet");
                }
            }
        };
        let _ = tokio::time::timeout(limit, ready).await;
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("began", &self.process.began).finish_non_exhaustive()
    }
}
