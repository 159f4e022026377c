//! What can be seen of a proxy from outside: numbers, the last problems, who signed in as whom.
//!
//! A [`Telemetry`] is for a process, a [`TargetTelemetry`] for one of its targets: an [`AuthProxy`](crate::AuthProxy)
//! takes one and tells it what happens. Nothing of a token gets here.

mod audit;
mod connection;
mod counts;
mod metrics;
mod outcome;
mod problems;
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

pub use audit::{AuditLog, OpenLog};
pub(crate) use connection::{ConnectionRecord, Ended, SignIn};
pub(crate) use counts::Cancelled;
pub use counts::PoolStats;
pub use standing::Summary;
pub use target::TargetTelemetry;
pub(crate) use target::{Listening, Pool};

use problems::Problems;

/// What can be seen of a process. Cheap to clone; clones are one.
#[derive(Clone)]
pub struct Telemetry(Arc<Process>);

struct Process {
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    began: SystemTime,
    /// Tells the process from every other, as their audit lines may stand in one file.
    instance: Uuid,
    /// Cancelled when the process begins to drain.
    stop: CancellationToken,
    started: AtomicBool,
    targets: Mutex<Vec<Weak<TargetTelemetry>>>,
    problems: Problems,
    audit: Option<AuditLog>,
    sessions: AtomicU64,
}

impl Telemetry {
    /// An observer of a process that begins now. `clock` is the time of day; `stop` is cancelled when the process is to
    /// end. Sessions are written to `audit` if there is one.
    pub fn new(
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
        stop: CancellationToken,
        audit: Option<AuditLog>,
    ) -> Self {
        Self(Arc::new(Process {
            began: clock(),
            instance: Uuid::new_v4(),
            clock: Box::new(clock),
            stop,
            started: AtomicBool::new(false),
            targets: Mutex::default(),
            problems: Problems::default(),
            audit,
            sessions: AtomicU64::new(0),
        }))
    }

    /// The observer of a target, under the name that metrics and audit lines give it. It is shared with whoever holds the
    /// one of the same name, so that a target which is set up anew goes on counting; it is gone when nobody holds it.
    pub fn target(&self, name: &str) -> Arc<TargetTelemetry> {
        let mut targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|target| target.strong_count() > 0);
        if let Some(known) = targets.iter().filter_map(Weak::upgrade).find(|target| target.name() == name) {
            return known;
        }
        let target = Arc::new(TargetTelemetry::new(name, self.clone()));
        targets.push(Arc::downgrade(&target));
        target
    }

    /// Every listener is up.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// Where sessions are written to.
    pub fn audit(&self) -> Option<&AuditLog> {
        self.0.audit.as_ref()
    }

    pub(crate) fn has_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    /// What the process is told to stop with.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.0.clock)()
    }

    pub(crate) fn instance(&self) -> Uuid {
        self.0.instance
    }

    pub(crate) fn targets(&self) -> Vec<Arc<TargetTelemetry>> {
        let targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether clients are to be sent here: every target has had an answer to its first request for a token, and at least
    /// one has a token and a listener. A server that is down does not count, as its clients are told why by this proxy, and
    /// would be told nothing by none; nor do targets that fail beside others that do not. [`Telemetry::summary`] names them.
    ///
    /// # Errors
    /// What is missing, in words: a token, a listener; or that it drains.
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

    /// How many targets serve, are idle and fail, and which fail why.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.targets(), self.now())
    }

    /// Ends the kept sessions of this database, or of all databases, of every target. Returns how many there were.
    pub(crate) async fn close_kept(&self, database: Option<&str>) -> usize {
        let targets = self.targets();
        join_all(targets.iter().map(|target| target.close_kept(database))).await.into_iter().sum()
    }

    /// Waits until there is a token for every target, but no longer than `limit`; not where clients are not let in anyway.
    /// The requests go on when it returns.
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
        f.debug_struct("Observer").field("began", &self.0.began).finish_non_exhaustive()
    }
}
