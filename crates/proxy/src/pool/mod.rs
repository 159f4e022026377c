//! The sessions with the server of one target: pooled ones, and new ones where the pool has none.

mod recycle;
mod refill;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use pgentra_connect::{ConnectError, Connector, SessionAttrs};
use pgentra_wire::backend::ParameterStatus;
use pgentra_wire::startup::StartupMessage;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::limits::{Rate, SessionLimit, SessionPermit};
use super::options::Options;
use super::refusal;
use super::servers::{ServerView, ServerWatch};
use super::telemetry::{PoolControl, TargetTelemetry};
use super::upstream::{Opened, Upstream};
use pgentra_session::kept::{Evictions, Idle as _, IdleSessions, PLACE, Reclaimed, Unanswered};
use pgentra_session::login_error::{LoginError, chain, sqlstate};
use recycle::{ResetError, clean};

pub(crate) use refill::RefillGuard;

/// The longest that cleaning may take. Dropping a hundred temporary tables takes some tenths of a
/// second.
const CLEANING: Duration = Duration::from_secs(5);

/// The sessions with the server of one target.
pub(crate) struct ServerPool {
    connector: Connector,
    /// `None`: every server suits.
    servers: Option<ServerView>,
    telemetry: Arc<TargetTelemetry>,
    /// Counts the sessions, together with those of other proxies of the target.
    sessions: SessionLimit,
    limit: usize,
    /// Limits the connections to the server that are being opened for clients.
    opening: Arc<Semaphore>,
    rate: Arc<Rate>,
    warm: usize,
    reuse: bool,
    server_lifetime: Duration,
    server_check_delay: Duration,
    warm_max_age: Duration,
    idle: IdleSessions<Upstream>,
    /// The pool of the same target for clients that want another kind of server.
    other: OnceLock<Weak<ServerPool>>,
    /// Wakes the refill task.
    changed: Arc<Notify>,
    refill: Mutex<Refill>,
}

/// The listeners that are served, and the refill task that runs for them.
#[derive(Default)]
struct Refill {
    listeners: usize,
    task: Option<AbortHandle>,
}

impl ServerPool {
    /// An empty pool, which stores sessions while a [`RefillGuard`] exists.
    pub(crate) fn new(connector: Connector, options: &Options) -> Self {
        let clients = options.shared.clients.clone();
        let servers = ServerWatch::view(&connector, options.server_role_interval, clients);
        Self {
            connector,
            servers,
            telemetry: Arc::clone(&options.telemetry),
            sessions: options.shared.sessions.clone(),
            limit: options.limits.connections,
            opening: Arc::new(Semaphore::new(options.limits.starting.clamp(1, Semaphore::MAX_PERMITS))),
            rate: Arc::new(Rate::new(options.connect_rate)),
            warm: options.warm,
            reuse: options.reuse,
            server_lifetime: options.server_lifetime,
            server_check_delay: options.server_check_delay,
            warm_max_age: options.warm_max_age,
            idle: IdleSessions::new(options.warm_max_age, options.telemetry.supply().ready.clone()),
            other: OnceLock::new(),
            changed: Arc::default(),
            refill: Mutex::default(),
        }
    }

    /// The pool of the same target for clients that prefer a standby. Each makes room for clients of the other.
    pub(crate) fn reading(self: &Arc<Self>) -> Arc<Self> {
        let reading = Arc::new(Self {
            connector: self.connector.with_session_attrs(SessionAttrs::PreferStandby),
            servers: self.servers.as_ref().map(ServerView::reading),
            telemetry: Arc::clone(&self.telemetry),
            sessions: self.sessions.clone(),
            limit: self.limit,
            opening: Arc::clone(&self.opening),
            rate: Arc::clone(&self.rate),
            warm: self.warm,
            reuse: self.reuse,
            server_lifetime: self.server_lifetime,
            server_check_delay: self.server_check_delay,
            warm_max_age: self.warm_max_age,
            idle: IdleSessions::new(self.warm_max_age, self.telemetry.supply().ready.clone()),
            other: OnceLock::new(),
            changed: Arc::default(),
            refill: Mutex::default(),
        });
        // A second one of this target makes room for its own clients alone.
        let _ = reading.other.set(Arc::downgrade(self));
        let _ = self.other.set(Arc::downgrade(&reading));
        reading
    }

    /// A session for this start-up: a pooled one, else a new one.
    pub(crate) async fn acquire(&self, start: &StartupMessage) -> Result<Upstream, LoginError> {
        let pools = self.pools(start);
        if pools {
            if let Some(ready) = self.ready(start).await {
                self.telemetry.supply().hits.inc();
                if self.warm > 0 {
                    self.changed.notify_one();
                }
                return Ok(ready);
            }
            self.telemetry.supply().misses.inc();
        }
        let mut upstream = self.open_apart(start).await?;
        if pools
            && self.reuse
            && let Err(error) = upstream.identify().await
        {
            tracing::info!(error = chain(&error), "a session that cannot be pooled is replaced");
            let permit = upstream.permit;
            let opened = self.open(start).await.map_err(|error| refusal::failed(&error))?;
            upstream = Upstream::new(opened, permit, self.server_lifetime);
        }
        if pools && self.idle.learn(start, Instant::now()) {
            self.changed.notify_one();
        }
        Ok(upstream)
    }

    /// A new session for this start-up, apart from the pool.
    pub(crate) async fn open_apart(&self, start: &StartupMessage) -> Result<Upstream, LoginError> {
        let permit = self.permit().await.ok_or_else(|| refusal::too_many(self.limit))?;
        // The semaphore is never closed.
        let _opening = self.opening.acquire().await;
        self.rate.turn().await.map_err(|_| refusal::too_fast(self.rate.per_second()))?;
        let opened = self.open(start).await.map_err(|error| refusal::failed(&error))?;
        Ok(Upstream::new(opened, permit, self.server_lifetime))
    }

    /// Whether sessions with this start-up go back to the pool.
    pub(crate) fn reuses(&self, start: &StartupMessage) -> bool {
        self.reuse && self.pools(start)
    }

    /// Cleans an idle session that its client has left, and pools it. The client's cancel key must
    /// be invalid already: a cancel request with it would hit the next client. `changed` are the
    /// settings that the server reported during the session. An unexpected answer ends it.
    pub(crate) async fn recycle(
        &self,
        mut upstream: Upstream,
        start: &StartupMessage,
        changed: Vec<ParameterStatus>,
    ) {
        let Some(returning) = self.idle.returning(start) else { return };
        upstream.cancel = match upstream.cancel.take() {
            None => None,
            Some(cancel) => match cancel.unused() {
                Some(cancel) => Some(cancel),
                None => return,
            },
        };
        if !upstream.may_be_kept() || upstream.token_expires_on <= self.connector.now() {
            return;
        }
        let cleaned = timeout(CLEANING, clean(&mut upstream, changed)).await;
        match cleaned.unwrap_or(Err(Unanswered::Slow.into())) {
            Ok(()) => {
                self.telemetry.supply().reused.inc();
                returning.arrived(upstream, Instant::now());
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::debug!(reason, "a session is not used again");
                if matches!(error, ResetError::Temporary) {
                    upstream.end().await;
                }
            }
        }
    }

    /// Whether sessions of this start-up are pooled. Replication sessions are not, because a client
    /// opens few of them.
    fn pools(&self, start: &StartupMessage) -> bool {
        (self.warm > 0 || self.reuse) && start.get("replication").is_none()
    }

    /// A pooled session for this start-up that equals a new one. A new sign-in would need a valid
    /// token.
    async fn ready(&self, start: &StartupMessage) -> Option<Upstream> {
        let now = Instant::now();
        let since = now.checked_sub(self.server_check_delay).unwrap_or(now);
        let is_valid = |upstream: &Upstream| upstream.token_expires_on > self.connector.now();
        self.idle.hand_out(start, since, is_valid).await
    }

    /// A session permit. A pooled session is ended if all permits are taken.
    async fn permit(&self) -> Option<SessionPermit> {
        if let Some(permit) = self.sessions.take(self.limit) {
            return Some(permit);
        }
        match self.idle.claim() {
            Reclaimed::Session(upstream) => Some(upstream.permit),
            Reclaimed::Coming(_claim) => {
                self.changed.notify_one();
                timeout(PLACE, self.sessions.wait(self.limit)).await.ok()
            }
            Reclaimed::Nothing => match self.other.get()?.upgrade()?.idle.claim() {
                Reclaimed::Session(upstream) => Some(upstream.permit),
                Reclaimed::Coming(_) | Reclaimed::Nothing => None,
            },
        }
    }

    /// Opens a new session. If the server's connection limit is reached, pooled sessions are ended.
    async fn open(&self, start: &StartupMessage) -> Result<Opened, ConnectError> {
        let mut evictions = Evictions::default();
        loop {
            match self.dial(start).await {
                Err(error) if is_full(&error) => {
                    self.idle.pause(Instant::now());
                    if !self.idle.relieve(start, &mut evictions).await {
                        return Err(error);
                    }
                }
                opened => return opened,
            }
        }
    }

    /// Signs in at the server that suits, as far as it is known.
    async fn dial(&self, start: &StartupMessage) -> Result<Opened, ConnectError> {
        let order = self.servers.as_ref().map_or_else(|| self.connector.host_order(), ServerView::order);
        let opened = self.connector.open_among(start, &order).await;
        match opened {
            Ok(signed_in) => {
                self.telemetry.opened(signed_in.timings());
                let demoted =
                    self.servers.as_ref().and_then(|servers| servers.opened(&signed_in, start, &order));
                Ok(Opened { signed_in, demoted })
            }
            Err(error) => {
                self.telemetry.failed(&error, &refusal::failed(&error));
                self.ask_servers();
                Err(error)
            }
        }
    }

    /// What telemetry shows of the servers. `None`: every server suits.
    pub(crate) fn shown_servers(&self) -> Option<Weak<ServerWatch>> {
        self.servers.as_ref().map(ServerView::shown)
    }

    /// The kind of server that its sessions are with.
    pub(crate) fn wanted(&self) -> SessionAttrs {
        self.connector.target().session_attrs()
    }

    /// Has the servers asked at once what they are: a session has failed or was ended by its server.
    pub(crate) fn ask_servers(&self) {
        if let Some(servers) = &self.servers {
            servers.ask_at_once();
        }
    }
}

/// Whether the server has no connection free.
fn is_full(error: &ConnectError) -> bool {
    error.server_message().is_some_and(|server| server.sqlstate() == sqlstate::TOO_MANY_CONNECTIONS)
}

impl PoolControl for ServerPool {
    fn close<'a>(&'a self, database: Option<&'a str>) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>> {
        Box::pin(self.idle.end_all(database.map(str::as_bytes)))
    }
}

impl fmt::Debug for ServerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerPool")
            .field("connector", &self.connector)
            .field("warm", &self.warm)
            .field("reuse", &self.reuse)
            .finish_non_exhaustive()
    }
}
