//! The refill task: opens sessions before a client asks for them.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use pgentra_connect::{ConnectError, SignedIn};
use pgentra_wire::startup::StartupMessage;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::pool::{Checkout, Eviction, PendingOpen, Reclaimed};
use super::upstream::Upstream;
use super::{AuthProxy, refusal};
use crate::session_limit::SessionPermit;
use crate::telemetry::{Pool, PoolStats};
use pgentra_session::login_error::{LoginError, chain, sqlstate};

/// Sessions that the refill opens at the same time: few, to spare a server that has just restarted.
const AT_ONCE: usize = 4;
/// How often waiting sessions are checked. It bounds how long an ended session keeps its permit;
/// each session is checked again before a client gets it.
const LOOK: Duration = Duration::from_secs(1);
/// How long a client waits for a session that is being cleaned, before the proxy opens a new one.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// How long a client waits for the permit of a session that the refill opens.
const PLACE: Duration = Duration::from_secs(2);

impl AuthProxy {
    /// The pool's counters, over all proxies with the same telemetry. All zero if no sessions are
    /// pooled: see [`Options::warm`](super::Options::warm) and
    /// [`Options::reuse`](super::Options::reuse).
    pub fn supply(&self) -> PoolStats {
        self.telemetry.supply().get()
    }

    /// A session for this start-up: a pooled one, else a new one.
    pub(super) async fn session(&self, start: &StartupMessage) -> Result<Upstream, LoginError> {
        let keeps = self.keeps(start);
        if keeps {
            if let Some(ready) = self.ready(start).await {
                self.telemetry.supply().hits.inc();
                if self.warm > 0 {
                    self.changed.notify_one();
                }
                return Ok(ready);
            }
            self.telemetry.supply().misses.inc();
        }
        let permit = self.permit().await.ok_or_else(|| refusal::too_many(self.limits.connections))?;
        // The semaphore is never closed.
        let _opening = self.opening.acquire().await;
        self.rate.turn().await.map_err(|_| refusal::too_fast(self.rate.per_second()))?;
        let signed_in = self.open(start).await.map_err(|error| refusal::failed(&error))?;
        let mut upstream = Upstream::new(signed_in, permit, self.server_lifetime);
        if keeps
            && self.reuse
            && let Err(error) = upstream.identify().await
        {
            tracing::info!(error = chain(&error), "a session that cannot be pooled is replaced");
            let permit = upstream.permit;
            let signed_in = self.open(start).await.map_err(|error| refusal::failed(&error))?;
            upstream = Upstream::new(signed_in, permit, self.server_lifetime);
        }
        if keeps && self.pool.learn(start, Instant::now()) {
            self.changed.notify_one();
        }
        Ok(upstream)
    }

    /// Whether sessions of this start-up are pooled. Replication sessions are not, because a client
    /// opens few of them.
    pub(super) fn keeps(&self, start: &StartupMessage) -> bool {
        (self.warm > 0 || self.reuse) && start.get("replication").is_none()
    }

    /// A pooled session for this start-up that equals a new one.
    async fn ready(&self, start: &StartupMessage) -> Option<Upstream> {
        let latest = self.pool.latest(start)?;
        let now = Instant::now();
        let since = now.checked_sub(self.server_check_delay).unwrap_or(now);
        loop {
            let mut upstream = match self.pool.take(start, Instant::now()) {
                Checkout::Ready(upstream) => upstream,
                Checkout::Soon(waiter) => timeout(ON_ITS_WAY, waiter).await.ok()?.ok()?,
                Checkout::Nothing => return None,
            };
            // A new sign-in would need a valid token.
            if upstream.token_expires_on <= self.connector.now() {
                continue;
            }
            match upstream.is_as_new(&latest, since).await {
                Ok(true) => return Some(upstream),
                Ok(false) => {
                    tracing::info!("pooled sessions are ended: a new session would differ from them");
                    // The others have the same role and database. They are ended before a new
                    // session is opened, so that the server has their connections free.
                    let others = self.pool.empty(start);
                    join_all(others.into_iter().chain([upstream]).map(Upstream::end)).await;
                    return None;
                }
                Err(error) => {
                    tracing::info!(error = chain(&error), "a pooled session cannot be used");
                    // The others may have lost their connection too: the client does not wait for a
                    // check of each.
                    drop(self.pool.empty(start));
                    return None;
                }
            }
        }
    }

    /// A session permit. A pooled session is ended if all permits are taken.
    async fn permit(&self) -> Option<SessionPermit> {
        let (sessions, limit) = (&self.shared.sessions, self.limits.connections);
        if let Some(permit) = sessions.take(limit) {
            return Some(permit);
        }
        match self.pool.claim() {
            Reclaimed::Session(upstream) => Some(upstream.permit),
            Reclaimed::Coming(_claim) => {
                self.changed.notify_one();
                timeout(PLACE, sessions.wait(limit)).await.ok()
            }
            Reclaimed::Nothing => None,
        }
    }

    /// Opens a new session. If the server's connection limit is reached, pooled sessions are ended.
    async fn open(&self, start: &StartupMessage) -> Result<SignedIn, ConnectError> {
        let mut evictions = Eviction::ALL.iter();
        loop {
            match self.dial(start).await {
                Err(error) if is_full(&error) => {
                    self.pool.pause(Instant::now());
                    if !self.make_room(start, &mut evictions).await {
                        return Err(error);
                    }
                }
                opened => return opened,
            }
        }
    }

    /// Ends pooled sessions by the next of these rules that finds any. `false`: there are none.
    async fn make_room(
        &self,
        start: &StartupMessage,
        evictions: &mut std::slice::Iter<'_, Eviction>,
    ) -> bool {
        for eviction in evictions {
            let ended = match eviction {
                Eviction::Coming => match self.pool.coming() {
                    Some(coming) => Vec::from_iter(timeout(PLACE, coming).await.ok().and_then(Result::ok)),
                    None => continue,
                },
                eviction => self.pool.make_room(start, *eviction),
            };
            if !ended.is_empty() || *eviction == Eviction::Coming {
                join_all(ended.into_iter().map(Upstream::end)).await;
                return true;
            }
        }
        false
    }

    async fn dial(&self, start: &StartupMessage) -> Result<SignedIn, ConnectError> {
        let opened = self.connector.open(start).await;
        match &opened {
            Ok(signed_in) => self.telemetry.opened(signed_in.timings()),
            Err(error) => self.telemetry.failed(error, &refusal::failed(error)),
        }
        opened
    }

    /// Checks and refills the pool until it is dropped.
    async fn keep(self: Arc<Self>) {
        let mut openings = JoinSet::new();
        loop {
            while openings.try_join_next().is_some() {}
            if self.pool.is_claimed() {
                openings.abort_all();
            }
            let any = self.pool.sweep(Instant::now());
            for start in self.pool.missing(self.warm, Instant::now()) {
                if openings.len() >= AT_ONCE || self.pool.is_claimed() {
                    break;
                }
                let Some(permit) = self.shared.sessions.take(self.limits.connections) else { break };
                if !self.rate.try_turn() {
                    break;
                }
                let Some(opening) = self.pool.opening(&start) else { continue };
                openings.spawn(Arc::clone(&self).open_ahead(start, opening, permit));
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Some(_) = openings.join_next(), if !openings.is_empty() => {}
                () = sleep(LOOK), if any => {}
            }
        }
    }

    async fn open_ahead(
        self: Arc<Self>,
        start: StartupMessage,
        opening: PendingOpen<Upstream>,
        permit: SessionPermit,
    ) {
        match self.dial(&start).await {
            Ok(signed_in) => {
                let mut upstream = Upstream::new(signed_in, permit, self.server_lifetime);
                let identified = upstream.identify().await;
                if identified.is_ok() && upstream.may_be_kept() {
                    self.telemetry.supply().warmed.inc();
                    return opening.opened(upstream, Instant::now());
                }
                self.telemetry.supply().failed.inc();
                let error = identified.err().map(|error| chain(&error));
                tracing::info!(error, "a session that the refill opened cannot be pooled");
                opening.failed(Instant::now());
                upstream.end().await;
            }
            Err(error) => {
                self.telemetry.supply().failed.inc();
                tracing::info!(%error, "the refill could not open a session");
                if is_full(&error) {
                    self.pool.pause(Instant::now());
                }
                opening.failed(Instant::now());
            }
        }
    }
}

fn is_full(error: &ConnectError) -> bool {
    error.server_message().is_some_and(|server| server.sqlstate() == sqlstate::TOO_MANY_CONNECTIONS)
}

impl Pool for AuthProxy {
    fn close<'a>(&'a self, database: Option<&'a str>) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>> {
        let closed = self.pool.forget(database.map(str::as_bytes));
        Box::pin(async move {
            let ended = join_all(closed.into_iter().map(Upstream::end)).await;
            ended.len()
        })
    }
}

/// The pool stores sessions while one of these exists.
pub(super) struct RefillGuard(Arc<AuthProxy>);

impl RefillGuard {
    pub(super) fn of(proxy: Arc<AuthProxy>) -> Option<Self> {
        if proxy.warm == 0 && !proxy.reuse {
            return None;
        }
        let mut refill_tasks = proxy.refill_tasks.0.lock().unwrap_or_else(PoisonError::into_inner);
        refill_tasks.0 += 1;
        if refill_tasks.1.is_none() {
            proxy.pool.open();
            let pool: Weak<AuthProxy> = Arc::downgrade(&proxy);
            proxy.telemetry.kept_by(pool);
            refill_tasks.1 = Some(tokio::spawn(Arc::clone(&proxy).keep()).abort_handle());
        }
        drop(refill_tasks);
        Some(Self(proxy))
    }
}

impl Drop for RefillGuard {
    fn drop(&mut self) {
        let mut refill_tasks = self.0.refill_tasks.0.lock().unwrap_or_else(PoisonError::into_inner);
        refill_tasks.0 -= 1;
        if refill_tasks.0 == 0 {
            refill_tasks.1.take().inspect(AbortHandle::abort);
            self.0.pool.close();
        }
    }
}
