//! The pooled sessions of one start-up, and those of all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgentra_wire::startup::StartupMessage;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fingerprint::Latest;
use super::{Idle, Unhealthy};

/// Pause of the refill after a failure; it doubles with each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const BACK_OFF_LIMIT: Duration = Duration::from_secs(60);
/// A server with a shorter `idle_session_timeout` gets no pooled sessions: they would end before
/// their use.
const SHORTEST_AGE: Duration = Duration::from_secs(1);

/// The sessions of a pool. Clones share them.
pub(super) struct Shared<T>(Arc<Mutex<Buckets<T>>>);

impl<T> Shared<T> {
    pub(super) fn new(buckets: Buckets<T>) -> Self {
        Self(Arc::new(Mutex::new(buckets)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Buckets<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) struct Buckets<T> {
    pub(super) by_start: HashMap<StartupMessage, Bucket<T>>,
    pub(super) open: bool,
    pub(super) claims: usize,
    /// Clients that wait for the server to free the connection of a session which is being opened
    /// or cleaned.
    pub(super) wanted: VecDeque<oneshot::Sender<T>>,
    pub(super) max_age: Duration,
    /// The refill opens nothing before this time.
    pub(super) paused: Option<Instant>,
    /// The number of sessions that wait.
    pub(super) ready: Gauge,
}

pub(super) struct Bucket<T> {
    /// The last entry is the newest and is taken first: firewalls are least likely to have dropped
    /// it.
    pub(super) waiting: Vec<IdleEntry<T>>,
    pub(super) opening: usize,
    pub(super) returning: usize,
    pub(super) queue: VecDeque<oneshot::Sender<T>>,
    pub(super) asked: Instant,
    pub(super) latest: Arc<Latest>,
    pub(super) max_age: Duration,
    pub(super) failures: u32,
    pub(super) retry: Instant,
}

pub(super) struct IdleEntry<T> {
    pub(super) session: T,
    pub(super) since: Instant,
    _gauge: GaugeGuard,
}

/// Counts one while it exists.
struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<T: Idle> Buckets<T> {
    /// Takes out the session that is least likely to be used.
    pub(super) fn evict(&mut self, is_meant: impl Fn(&StartupMessage) -> bool) -> Option<T> {
        let buckets =
            self.by_start.iter_mut().filter(|(start, bucket)| !bucket.waiting.is_empty() && is_meant(start));
        let (_, bucket) = buckets.min_by_key(|(_, bucket)| bucket.asked)?;
        Some(bucket.waiting.remove(0).session)
    }

    /// The number of sessions that are being opened or cleaned.
    pub(super) fn coming(&self) -> usize {
        self.by_start.values().map(|bucket| bucket.opening + bucket.returning).sum()
    }

    /// Closes the channels of clients that wait for more sessions than are on their way.
    pub(super) fn came_to_nothing(&mut self) {
        let coming = self.coming();
        self.wanted.truncate(coming);
    }

    /// Gives a session to a client that waits for it, or stores it. A session that must not be
    /// stored is ended.
    pub(super) fn put(&mut self, start: &StartupMessage, mut session: T, now: Instant) {
        let Some(bucket) = self.by_start.get_mut(start) else { return };
        while let Some(waiter) = bucket.queue.pop_front() {
            match waiter.send(session) {
                Ok(()) => return,
                Err(back) => session = back,
            }
        }
        while let Some(waiter) = self.wanted.pop_front() {
            match waiter.send(session) {
                Ok(()) => return,
                Err(back) => session = back,
            }
        }
        if self.claims == 0 {
            bucket.waiting.push(IdleEntry { session, since: now, _gauge: GaugeGuard::new(&self.ready) });
        }
    }
}

/// Whether sessions of these start-ups can count for the same limit.
pub(super) fn is_related(one: &StartupMessage, other: &StartupMessage) -> bool {
    one.user() == other.user() || one.database() == other.database()
}

impl<T> Bucket<T> {
    /// A start-up that a client was signed in with just now, without sessions yet.
    pub(super) fn new(max_age: Duration, now: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            opening: 0,
            returning: 0,
            queue: VecDeque::new(),
            asked: now,
            latest: Arc::default(),
            max_age,
            failures: 0,
            retry: now,
        }
    }

    pub(super) fn empty(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|waiting| waiting.session).collect()
    }
}

impl<T: Idle> Bucket<T> {
    pub(super) fn is_fit(&mut self, waiting: &mut IdleEntry<T>, now: Instant) -> bool {
        let age = now.saturating_duration_since(waiting.since);
        match waiting.session.check() {
            Ok(()) => age < self.max_age,
            Err(spoiled) => {
                tracing::debug!(?spoiled, ?age, "a pooled session was ended");
                if spoiled == Unhealthy::IdleTimeout {
                    self.max_age = self.max_age.min(age / 2).max(SHORTEST_AGE);
                }
                false
            }
        }
    }

    pub(super) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.retry = self.retry.min(now);
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let pause = BACK_OFF.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.retry = now + pause.min(BACK_OFF_LIMIT);
    }
}
