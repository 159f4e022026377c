//! The clock of the local cloud.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock of the local cloud. Clones share one clock.
///
/// Tokens, certificates of federated assertions and caches of the platform follow this clock alone, so a test moves a
/// day ahead by one call. Timeouts of connections follow tokio's clock.
#[derive(Clone)]
pub struct Clock {
    base: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ahead: Arc<Mutex<Duration>>,
}

impl Clock {
    /// A clock that follows `now`, usually the system's, plus whatever it is advanced by.
    pub fn following(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { base: Arc::new(now), ahead: Arc::default() }
    }

    /// A clock that stands at `at` and moves only when advanced.
    pub fn fixed(at: SystemTime) -> Self {
        Self::following(move || at)
    }

    /// The current time of the local cloud.
    pub fn now(&self) -> SystemTime {
        (self.base)() + self.ahead()
    }

    /// How far it was moved ahead of the clock that it follows.
    pub fn ahead(&self) -> Duration {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves this clock, and every clone of it, forward by `by`. It never goes back, as the real one does not.
    pub fn advance(&self, by: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Seconds since 1970 on the clock that this one follows: the time of programs beside the local cloud.
    pub(crate) fn outside(&self) -> i64 {
        unix((self.base)())
    }

    /// Seconds since 1970: the form of every time in a token.
    pub(crate) fn unix(&self) -> i64 {
        unix(self.now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// `at` as seconds since 1970; a time before 1970 is negative.
pub(crate) fn unix(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_moves_with_its_clock() {
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Clock::fixed(start);
        let other = clock.clone();
        assert_eq!(other.now(), start);
        clock.advance(Duration::from_secs(90));
        assert_eq!((other.unix(), other.ahead()), (1_800_000_090, Duration::from_secs(90)));
    }

    #[test]
    fn a_following_clock_keeps_its_lead() {
        let base = Arc::new(Mutex::new(UNIX_EPOCH));
        let shared = base.clone();
        let clock = Clock::following(move || *shared.lock().unwrap());
        clock.advance(Duration::from_secs(5));
        *base.lock().unwrap() += Duration::from_secs(100);
        assert_eq!(clock.unix(), 105);
        assert_eq!(unix(UNIX_EPOCH - Duration::from_secs(3)), -3);
    }
}
