//! How many new connections to a server there are in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest that a client waits for its turn. Longer than a burst of clients takes with a sensible rate, and shorter
/// than the connect timeouts of drivers.
const PATIENCE: Duration = Duration::from_secs(5);

/// A token bucket that holds the connections of one second (the "generic cell rate algorithm").
pub(crate) struct Rate {
    per_second: u32,
    /// When the bucket is full again, if nobody comes.
    full: Mutex<Option<Instant>>,
}

/// The queue is longer than a client may wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueTooLong;

impl Rate {
    /// 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, full: Mutex::new(None) }
    }

    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Waits for this client's turn; turns are in the order in which they are asked for. A client that goes away while it
    /// waits leaves its turn unused.
    pub(crate) async fn turn(&self) -> Result<(), QueueTooLong> {
        match self.reserve(Instant::now(), PATIENCE)? {
            Duration::ZERO => Ok(()),
            wait => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
        }
    }

    /// Takes a turn if it is there at once, without a queue: for whatever no client waits for.
    pub(crate) fn try_turn(&self) -> bool {
        self.reserve(Instant::now(), Duration::ZERO).is_ok()
    }

    /// How long to wait, at most `patience`. The turn is taken only if it is not longer.
    fn reserve(&self, now: Instant, patience: Duration) -> Result<Duration, QueueTooLong> {
        let Some(interval) = Duration::from_secs(1).checked_div(self.per_second) else {
            return Ok(Duration::ZERO);
        };
        let burst = interval * (self.per_second - 1);
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = full.filter(|full| *full > now).unwrap_or(now);
        let wait = begin.duration_since(now).saturating_sub(burst);
        if wait > patience {
            return Err(QueueTooLong);
        }
        *full = Some(begin + interval);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_at_once_and_then_one_by_one() {
        let rate = Rate::new(10);
        let now = Instant::now();
        let waits: Vec<_> = (0..12).map(|_| rate.reserve(now, PATIENCE).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]);
        // Half a second later two are still owed, and three more are free again.
        let later = now + Duration::from_millis(500);
        let waits: Vec<_> = (0..4).map(|_| rate.reserve(later, PATIENCE).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_bounded_and_a_refusal_takes_no_turn() {
        let rate = Rate::new(1);
        let now = Instant::now();
        for wait in 0..=5 {
            assert_eq!(rate.reserve(now, PATIENCE), Ok(Duration::from_secs(wait)));
        }
        for _ in 0..3 {
            assert_eq!(rate.reserve(now, PATIENCE), Err(QueueTooLong));
        }
        assert_eq!(rate.reserve(now + Duration::from_secs(1), PATIENCE), Ok(PATIENCE));
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
            assert_eq!(rate.reserve(Instant::now(), PATIENCE), Ok(Duration::ZERO));
        }
    }
}
