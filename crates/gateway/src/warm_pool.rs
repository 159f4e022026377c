//! The sessions that wait for clients at one server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgentra_session::kept::{self, Fingerprint, Idle, IdleSessions, Latest, Unanswered, Unhealthy};
use pgentra_wire::startup::StartupMessage;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::upstream_login::UpstreamLogin;
use crate::upstream_stream::UpstreamStream;

/// Which sessions are signed in before a client asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmSessions {
    /// How many wait for each set of start-up parameters that a client has used. Default 0: none. With
    /// [`Flavour::Single`](crate::Flavour::Single), where the server compares the id of each client, none
    /// waits either.
    pub number: usize,
    /// How long one waits before another takes its place. Default 3 minutes.
    pub max_age: Duration,
    /// How old the server's answer may be that a new session would equal one that waits. Default 0: it is
    /// asked before each is given away.
    pub check_delay: Duration,
}

impl Default for WarmSessions {
    fn default() -> Self {
        Self { number: 0, max_age: Duration::from_secs(180), check_delay: Duration::ZERO }
    }
}

/// The sessions that wait at one server, and the task that opens them.
pub(crate) struct WarmPool {
    pub(crate) number: usize,
    check_delay: Duration,
    pub(crate) idle: IdleSessions<WaitingSession>,
    /// Wakes the task.
    pub(crate) changed: Arc<Notify>,
    pub(crate) refill: Mutex<Option<AbortHandle>>,
}

/// The sessions that wait at one server, for the gateways that share its limits.
pub(crate) struct WaitingSessions {
    pub(crate) idle: IdleSessions<WaitingSession>,
    /// Wakes the task that opens them.
    pub(crate) changed: Arc<Notify>,
}

/// A session that waits for its client.
pub(crate) struct WaitingSession {
    /// What the server sent after AuthenticationOk has not been read from it yet.
    pub(crate) login: UpstreamLogin<UpstreamStream>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl WarmPool {
    /// No session waits yet. `ready` counts those that wait.
    pub(crate) fn new(options: WarmSessions, ready: Gauge) -> Self {
        let idle = IdleSessions::new(options.max_age, ready);
        if options.number > 0 {
            idle.open();
        }
        Self {
            number: options.number,
            check_delay: options.check_delay,
            idle,
            changed: Arc::default(),
            refill: Mutex::default(),
        }
    }

    /// The sessions that wait here, also for other gateways.
    pub(crate) fn waiting(&self) -> WaitingSessions {
        WaitingSessions { idle: self.idle.clone(), changed: self.changed.clone() }
    }

    /// Whether sessions with this start-up wait. Replication sessions do not: a client opens few.
    pub(crate) fn keeps(&self, start: &StartupMessage) -> bool {
        self.number > 0 && start.get("replication").is_none()
    }

    /// A session that waits with this start-up and equals a new one.
    pub(crate) async fn hand_out(&self, start: &StartupMessage) -> Option<WaitingSession> {
        let now = Instant::now();
        let since = now.checked_sub(self.check_delay).unwrap_or(now);
        self.idle.hand_out(start, since, |_| true).await
    }

    /// Ends the sessions that wait, and keeps none from now on.
    pub(crate) fn close(&self) {
        self.idle.close();
        self.refill.lock().unwrap_or_else(PoisonError::into_inner).take().inspect(AbortHandle::abort);
    }
}

impl Drop for WarmPool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Idle for WaitingSession {
    fn check(&mut self) -> Result<(), Unhealthy> {
        let stream = self.login.stream();
        let is_silent = kept::is_silent(&stream.socket());
        match kept::unasked(stream) {
            None if is_silent => Ok(()),
            heard => Err(heard.unwrap_or(Unhealthy::Disturbed)),
        }
    }

    async fn is_as_new(&mut self, latest: &Latest, since: Instant) -> Result<bool, Unanswered> {
        kept::is_unchanged(self.login.stream(), Some(&self.fingerprint), latest, since).await
    }

    async fn end(self) {
        self.login.end().await;
    }
}
