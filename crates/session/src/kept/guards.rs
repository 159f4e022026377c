//! Sessions that are on their way into the pool, and clients that wait for one of them.

use pgentra_wire::startup::StartupMessage;
use tokio::time::Instant;

use super::Idle;
use super::bucket::Shared;

/// A session that is being cleaned. Dropping this reports that it is not pooled.
pub struct Checkin<T: Idle> {
    pub(super) pool: Shared<T>,
    pub(super) start: StartupMessage,
}

impl<T: Idle> Checkin<T> {
    /// The session is clean.
    pub fn arrived(self, session: T, now: Instant) {
        self.pool.lock().put(&self.start, session, now);
    }
}

impl<T: Idle> Drop for Checkin<T> {
    fn drop(&mut self) {
        let mut buckets = self.pool.lock();
        if let Some(bucket) = buckets.by_start.get_mut(&self.start) {
            bucket.returning = bucket.returning.saturating_sub(1);
            // Closes the channels of clients that wait for more sessions than are on their way.
            bucket.queue.truncate(bucket.returning);
        }
        buckets.came_to_nothing();
    }
}

/// A session that the refill is opening. Dropping this reports that it failed.
pub struct PendingOpen<T: Idle> {
    pub(super) pool: Shared<T>,
    pub(super) start: StartupMessage,
}

impl<T: Idle> PendingOpen<T> {
    /// The session is open.
    pub fn opened(self, session: T, now: Instant) {
        let mut buckets = self.pool.lock();
        if let Some(bucket) = buckets.by_start.get_mut(&self.start) {
            bucket.succeeded(now);
        }
        buckets.put(&self.start, session, now);
    }

    /// It could not be opened: the next attempt has to wait.
    pub fn failed(self, now: Instant) {
        if let Some(bucket) = self.pool.lock().by_start.get_mut(&self.start) {
            bucket.failed(now);
        }
    }
}

impl<T: Idle> Drop for PendingOpen<T> {
    fn drop(&mut self) {
        let mut buckets = self.pool.lock();
        if let Some(bucket) = buckets.by_start.get_mut(&self.start) {
            bucket.opening = bucket.opening.saturating_sub(1);
        }
        buckets.came_to_nothing();
    }
}

/// A client that waits for a session permit.
pub struct Claim<T: Idle>(pub(super) Shared<T>);

impl<T: Idle> Drop for Claim<T> {
    fn drop(&mut self) {
        self.0.lock().claims -= 1;
    }
}
