//! Limits of the sessions with a server: how many there are, and how many are opened per second.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The longest that a client waits for its turn. Longer than a burst of clients takes with a
/// sensible rate, and shorter than the connect timeouts of drivers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts sessions. Clones share the count; each call has its own limit, so that a limit can change
/// while there are sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionLimit(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    number: AtomicUsize,
    /// Notified when a session ends.
    freed: Notify,
}

/// A permit for one session; dropping it frees the permit.
#[derive(Debug)]
pub(crate) struct SessionPermit(Arc<Taken>);

impl SessionLimit {
    /// Takes a permit, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<SessionPermit> {
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        self.0.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(SessionPermit(Arc::clone(&self.0)))
    }

    /// Waits for a permit. Cancel-safe; waiting clients have no order.
    pub(crate) async fn wait(&self, limit: usize) -> SessionPermit {
        loop {
            let freed = self.0.freed.notified();
            match self.take(limit) {
                Some(permit) => return permit,
                None => freed.await,
            }
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The number of permits taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.number.load(Ordering::Relaxed)
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.number.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_waiters();
    }
}

/// A token bucket that holds the connections of one second (the "generic cell rate algorithm").
pub(crate) struct Rate {
    per_second: u32,
    /// The time at which the bucket is full again without further turns.
    full: Mutex<Option<Instant>>,
    /// Clients that wait. The first of them has the lock.
    waiting: AtomicU32,
    first: tokio::sync::Mutex<()>,
}

/// The queue is longer than a client may wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueTooLong;

/// Counts a client in the queue.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Rate {
    /// A limit per second; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            full: Mutex::new(None),
            waiting: AtomicU32::new(0),
            first: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Waits for this client's turn; turns are given in the order of the calls. A client that hangs
    /// up while it waits takes no turn. Cancel-safe.
    pub(crate) async fn turn(&self) -> Result<(), QueueTooLong> {
        if self.try_turn() {
            return Ok(());
        }
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let interval = self.interval().unwrap_or_default();
        if interval * ahead + self.reserve(Instant::now(), false) > PATIENCE {
            return Err(QueueTooLong);
        }
        let _first = self.first.lock().await;
        loop {
            match self.reserve(Instant::now(), true) {
                Duration::ZERO => return Ok(()),
                wait => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Takes a turn if one is free and no client waits: for work that no client waits for.
    pub(crate) fn try_turn(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.reserve(Instant::now(), true).is_zero()
    }

    fn interval(&self) -> Option<Duration> {
        Duration::from_secs(1).checked_div(self.per_second)
    }

    /// The time until the next turn. The turn is taken if that is zero and `is_wanted`.
    fn reserve(&self, now: Instant, is_wanted: bool) -> Duration {
        let Some(interval) = self.interval() else {
            return Duration::ZERO;
        };
        let burst = interval * (self.per_second - 1);
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = full.filter(|full| *full > now).unwrap_or(now);
        let wait = begin.duration_since(now).saturating_sub(burst);
        if wait.is_zero() && is_wanted {
            *full = Some(begin + interval);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// The waiting times in milliseconds of so many clients that come at once, and the number of
    /// refused ones.
    async fn turns(rate: &Arc<Rate>, clients: usize) -> (Vec<u128>, usize) {
        let began = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..clients {
            let rate = Arc::clone(rate);
            all.spawn(async move { rate.turn().await.map(|()| began.elapsed().as_millis()) });
        }
        let mut turns: Vec<_> = all.join_all().await.into_iter().flatten().collect();
        turns.sort_unstable();
        let refused = clients - turns.len();
        (turns, refused)
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_at_once_and_then_one_by_one() {
        let rate = Arc::new(Rate::new(10));
        assert_eq!(turns(&rate, 12).await, (vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200], 0));
        // Half a second later five turns are free again.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(turns(&rate, 7).await, (vec![0, 0, 0, 0, 0, 100, 200], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_bounded_and_a_refusal_takes_no_turn() {
        let rate = Arc::new(Rate::new(1));
        assert_eq!(turns(&rate, 20).await, (vec![0, 1000, 2000, 3000, 4000, 5000], 14));
        assert_eq!(turns(&rate, 20).await, (vec![1000, 2000, 3000, 4000, 5000], 15));
    }

    /// Clients that come, wait and hang up take no turns from the one that stays.
    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_the_queue_leaves_its_turn() {
        let rate = Arc::new(Rate::new(1));
        assert!(rate.try_turn());
        for _ in 0..300 {
            let left = tokio::time::timeout(Duration::from_millis(1), rate.turn()).await;
            assert!(left.is_err(), "{left:?}");
        }
        let began = Instant::now();
        rate.turn().await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cannot_wait_takes_no_turn() {
        let rate = Rate::new(1);
        assert!(rate.try_turn());
        assert!(!rate.try_turn() && !rate.try_turn());
        let before = Instant::now();
        rate.turn().await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_is_no_wait() {
        let rate = Rate::new(0);
        for _ in 0..10_000 {
            assert_eq!(rate.turn().await, Ok(()));
            assert!(rate.try_turn());
        }
    }

    #[test]
    fn a_place_is_free_again_and_limits_may_differ() {
        let permits = SessionLimit::default();
        assert!(permits.take(0).is_none());
        let one = permits.take(1).unwrap();
        assert!(permits.take(1).is_none());
        let two = permits.clone().take(2).unwrap();
        assert_eq!(permits.taken(), 2);
        drop(one);
        assert!(permits.take(1).is_none(), "one session already reaches this limit");
        drop(two);
        assert_eq!(permits.taken(), 0);
        assert!(permits.take(1).is_some());
    }

    #[tokio::test]
    async fn a_place_that_gets_free_is_noticed() {
        let permits = SessionLimit::default();
        let permit = permits.take(1).unwrap();
        let (waited, ()) = tokio::join!(permits.wait(1), async { drop(permit) });
        assert_eq!(permits.taken(), 1);
        drop(waited);
    }
}
