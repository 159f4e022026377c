use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Where the time of day is read from.
///
/// Waiting and time limits do not go through this: they use tokio's clock, which tests can pause.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock, compared with the expiry of tokens.
    fn now(&self) -> SystemTime;
}

/// The system's clock; on Linux the coarse one, which is some milliseconds behind.
///
/// Everything that is compared with it is given in whole seconds, and reading the fine clock was more than half of the
/// price of a cached token (`cargo xtask bench token`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        read()
    }
}

#[cfg(target_os = "linux")]
fn read() -> SystemTime {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    std::time::UNIX_EPOCH + Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the one place where the system's clock is read")]
fn read() -> SystemTime {
    SystemTime::now()
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<SystemTime>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: SystemTime) -> Self {
        Self(Mutex::new(now))
    }

    /// Adds a duration to the time that the clock shows.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, now: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that starts at a given time of day and from there follows tokio's clock, so that a test which pauses and
/// advances tokio's time moves the time of day with it.
#[derive(Debug)]
pub struct RuntimeClock {
    start: SystemTime,
    began: Instant,
}

impl RuntimeClock {
    /// A clock that shows `now` at this moment.
    pub fn starting_at(now: SystemTime) -> Self {
        Self { start: now, began: Instant::now() }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> SystemTime {
        self.start + self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_runtime_clock_follows_a_paused_runtime() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let clock = RuntimeClock::starting_at(start);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), start + Duration::from_secs(3600));
    }

    #[test]
    fn a_manual_clock_moves_only_when_moved() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(2));
        clock.set(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the two clocks are compared")]
    fn the_coarse_clock_is_the_system_clock() {
        let before = SystemTime::now();
        let coarse = SystemClock.now();
        assert!(coarse <= SystemTime::now(), "it is never ahead");
        assert!(
            before.duration_since(coarse).unwrap_or_default() < Duration::from_secs(1),
            "an expiry is in seconds"
        );
    }
}
