//! Sessions that are opened before a client asks for them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use pgentra_connect::{ConnectError, SignedIn};
use pgentra_wire::startup::StartupMessage;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::pool::{Checkout, PendingOpen, Reclaimed, Room};
use super::upstream::Upstream;
use super::{AuthProxy, refusal};
use crate::session_limit::SessionPermit;
use crate::telemetry::Pool;
pub use crate::telemetry::PoolStats;
use pgentra_session::login_error::{LoginError, chain, sqlstate};

/// Sessions that are opened ahead at the same time: a server that has just come back has better things to do.
const AT_ONCE: usize = 4;
/// How often sessions that wait are looked at. It decides how soon the place of one that ended is free again; none is
/// handed out unseen.
const LOOK: Duration = Duration::from_secs(1);
/// How long a client waits for a session that another client is just leaving, before it gets one of its own.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// How long a client waits for the place of a session that was being opened ahead.
const PLACE: Duration = Duration::from_secs(2);

/// How many listeners are served, and the task that looks after the sessions meanwhile.
#[derive(Default)]
pub(super) struct RefillTasks(Mutex<(usize, Option<AbortHandle>)>);

impl AuthProxy {
    /// How well clients are supplied with sessions, by this injector and those that have the same observer. All zero where
    /// no sessions are kept: see [`Options::warm`](super::Options::warm) and [`Options::reuse`](super::Options::reuse).
    pub fn supply(&self) -> PoolStats {
        self.telemetry.supply().get()
    }

    /// A session for this start-up: one that is ready, else a new one.
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
        let place = self.place().await.ok_or_else(|| refusal::too_many(self.limits.connections))?;
        // The semaphore is never closed.
        let _opening = self.opening.acquire().await;
        self.rate.turn().await.map_err(|_| refusal::too_fast(self.rate.per_second()))?;
        let signed_in = self.open(start).await.map_err(|error| refusal::failed(&error))?;
        let mut upstream = Upstream::new(signed_in, place, self.server_lifetime);
        if keeps
            && self.reuse
            && let Err(error) = upstream.identify().await
        {
            tracing::info!(error = chain(&error), "a session that may not be kept is replaced");
            let place = upstream.place;
            let signed_in = self.open(start).await.map_err(|error| refusal::failed(&error))?;
            upstream = Upstream::new(signed_in, place, self.server_lifetime);
        }
        if keeps && self.stock.learn(start, Instant::now()) {
            self.changed.notify_one();
        }
        Ok(upstream)
    }

    /// Whether sessions of this start-up are kept. Not for replication, which no client begins twice in a moment.
    pub(super) fn keeps(&self, start: &StartupMessage) -> bool {
        (self.warm > 0 || self.reuse) && start.get("replication").is_none()
    }

    /// A session that is kept for this start-up, and is as a new one would be.
    async fn ready(&self, start: &StartupMessage) -> Option<Upstream> {
        let latest = self.stock.latest(start)?;
        let now = Instant::now();
        let since = now.checked_sub(self.server_check_delay).unwrap_or(now);
        loop {
            let mut upstream = match self.stock.take(start, Instant::now()) {
                Checkout::Ready(upstream) => upstream,
                Checkout::Soon(waiter) => timeout(ON_ITS_WAY, waiter).await.ok()?.ok()?,
                Checkout::Nothing => return None,
            };
            // A new sign-in would need a token that lives.
            if upstream.token_expires_on <= self.connector.now() {
                continue;
            }
            match upstream.is_as_new(&latest, since).await {
                Ok(true) => return Some(upstream),
                Ok(false) => {
                    tracing::info!("kept sessions are ended: a new one would not be as they are");
                    // The others are of the same role and database. The server has their places back before it is asked for
                    // a new session.
                    let others = self.stock.empty(start);
                    join_all(others.into_iter().chain([upstream]).map(Upstream::end)).await;
                    return None;
                }
                Err(error) => {
                    tracing::info!(error = chain(&error), "a kept session cannot be used");
                    // The others have the same way to the server, perhaps: the client does not wait for each of them.
                    drop(self.stock.empty(start));
                    return None;
                }
            }
        }
    }

    /// A place among the sessions. One that waits for a client gives up its own.
    async fn place(&self) -> Option<SessionPermit> {
        let (sessions, limit) = (&self.shared.sessions, self.limits.connections);
        if let Some(place) = sessions.take(limit) {
            return Some(place);
        }
        match self.stock.claim() {
            Reclaimed::Session(upstream) => Some(upstream.place),
            Reclaimed::Coming(_claim) => {
                self.changed.notify_one();
                timeout(PLACE, sessions.wait(limit)).await.ok()
            }
            Reclaimed::Nothing => None,
        }
    }

    /// A new session. Where the server has no place for it, those that wait make room.
    async fn open(&self, start: &StartupMessage) -> Result<SignedIn, ConnectError> {
        let mut rooms = Room::ALL.iter();
        loop {
            match self.dial(start).await {
                Err(error) if is_full(&error) => {
                    self.stock.pause(Instant::now());
                    if !self.make_room(start, &mut rooms).await {
                        return Err(error);
                    }
                }
                opened => return opened,
            }
        }
    }

    /// Ends kept sessions, in the next of these ways in which there are any. `false`: there are none.
    async fn make_room(&self, start: &StartupMessage, rooms: &mut std::slice::Iter<'_, Room>) -> bool {
        for room in rooms {
            let ended = match room {
                Room::Coming => match self.stock.coming() {
                    Some(coming) => Vec::from_iter(timeout(PLACE, coming).await.ok().and_then(Result::ok)),
                    None => continue,
                },
                room => self.stock.make_room(start, *room),
            };
            if !ended.is_empty() || *room == Room::Coming {
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

    /// Looks after the sessions that wait, until it is dropped.
    async fn keep(self: Arc<Self>) {
        let mut openings = JoinSet::new();
        loop {
            while openings.try_join_next().is_some() {}
            if self.stock.is_claimed() {
                openings.abort_all();
            }
            let any = self.stock.sweep(Instant::now());
            for start in self.stock.missing(self.warm, Instant::now()) {
                if openings.len() >= AT_ONCE || self.stock.is_claimed() {
                    break;
                }
                let Some(place) = self.shared.sessions.take(self.limits.connections) else { break };
                if !self.rate.try_turn() {
                    break;
                }
                let Some(opening) = self.stock.opening(&start) else { continue };
                openings.spawn(Arc::clone(&self).open_ahead(start, opening, place));
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
        place: SessionPermit,
    ) {
        match self.dial(&start).await {
            Ok(signed_in) => {
                let mut upstream = Upstream::new(signed_in, place, self.server_lifetime);
                let identified = upstream.identify().await;
                if identified.is_ok() && upstream.may_be_kept() {
                    self.telemetry.supply().warmed.inc();
                    return opening.opened(upstream, Instant::now());
                }
                self.telemetry.supply().failed.inc();
                let error = identified.err().map(|error| chain(&error));
                tracing::info!(error, "a session that was opened ahead may not be kept");
                opening.failed(Instant::now());
                upstream.end().await;
            }
            Err(error) => {
                self.telemetry.supply().failed.inc();
                tracing::info!(%error, "no session could be opened ahead");
                if is_full(&error) {
                    self.stock.pause(Instant::now());
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
        let closed = self.stock.forget(database.map(str::as_bytes));
        Box::pin(async move {
            let ended = join_all(closed.into_iter().map(Upstream::end)).await;
            ended.len()
        })
    }
}

/// Sessions are kept while one of these is there.
pub(super) struct RefillGuard(Arc<AuthProxy>);

impl RefillGuard {
    pub(super) fn of(proxy: Arc<AuthProxy>) -> Option<Self> {
        if proxy.warm == 0 && !proxy.reuse {
            return None;
        }
        let mut keepers = proxy.keepers.0.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.0 += 1;
        if keepers.1.is_none() {
            proxy.stock.open();
            let pool: Weak<AuthProxy> = Arc::downgrade(&proxy);
            proxy.telemetry.kept_by(pool);
            keepers.1 = Some(tokio::spawn(Arc::clone(&proxy).keep()).abort_handle());
        }
        drop(keepers);
        Some(Self(proxy))
    }
}

impl Drop for RefillGuard {
    fn drop(&mut self) {
        let mut keepers = self.0.keepers.0.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.0 -= 1;
        if keepers.0 == 0 {
            keepers.1.take().inspect(AbortHandle::abort);
            self.0.stock.close();
        }
    }
}
