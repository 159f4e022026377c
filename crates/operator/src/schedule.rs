//! When a resource is looked at again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

/// The first delay after a failure.
const FIRST: Duration = Duration::from_secs(2);
/// The longest delay after a failure that may pass by itself.
const LONGEST: Duration = Duration::from_secs(60);

/// When each resource is due. Writing its status, or that of another one, does not make it due earlier.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    entries: Mutex<HashMap<String, ScheduleEntry>>,
}

#[derive(Debug, Clone, Copy)]
struct ScheduleEntry {
    state: ResourceState,
    due: Instant,
    failures: u32,
}

/// What makes a resource due at once if it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResourceState {
    /// `metadata.generation`: a number for each change of the specification.
    pub(crate) generation: Option<i64>,
    /// Whether its deletion was asked for.
    pub(crate) is_deleted: bool,
}

/// How a look at a resource ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookEnd {
    /// Well, or with a fault that stays until the resource is changed.
    Settled,
    /// With a failure that may pass by itself.
    MayPass,
}

impl Schedule {
    /// How long to wait before the resource is looked at; `None`: it is due.
    pub(crate) fn wait(&self, uid: &str, state: ResourceState, now: Instant) -> Option<Duration> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(uid).filter(|entry| entry.state == state)?;
        entry.due.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Writes down how a look ended. Returns the delay until the next one.
    pub(crate) fn ended(
        &self,
        uid: &str,
        state: ResourceState,
        (ended, interval): (LookEnd, Duration),
        now: Instant,
    ) -> Duration {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entries.get(uid).filter(|entry| entry.state == state).map_or(0, |entry| entry.failures);
        let (failures, delay) = match ended {
            LookEnd::Settled => (0, interval),
            LookEnd::MayPass => (before.saturating_add(1), backoff(before).min(interval)),
        };
        let delay = jittered(delay, rand::rng().random());
        entries.insert(uid.to_owned(), ScheduleEntry { state, due: now + delay, failures });
        delay
    }

    /// Forgets resources that are gone.
    pub(crate) fn keep(&self, is_there: impl Fn(&str) -> bool) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|uid, _| is_there(uid));
    }
}

/// Doubles with each failure.
fn backoff(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST)
}

/// Up to a tenth more or less: resources that were made together do not stay together.
fn jittered(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(0.9 + 0.2 * random)
}

/// Reads an interval such as `5m`. The API server lets nothing else through; `None` for anything else.
pub(crate) fn interval(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    number.checked_mul(seconds).filter(|seconds| (10..=86_400).contains(seconds)).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: ResourceState = ResourceState { generation: Some(1), is_deleted: false };

    #[test]
    fn intervals_have_a_unit_and_bounds() {
        assert_eq!(interval("10s"), Some(Duration::from_secs(10)));
        assert_eq!(interval("5m"), Some(Duration::from_secs(300)));
        assert_eq!(interval("24h"), Some(Duration::from_secs(86_400)));
        for text in ["", "s", "9s", "25h", "5", "5d", "-5m", "99999999999999999999h", "5µ"] {
            assert_eq!(interval(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_is_due_when_it_changes_or_its_time_has_come() {
        let schedule = Schedule::default();
        let now = Instant::now();
        assert_eq!(schedule.wait("a", STATE, now), None, "it was never looked at");
        let interval = Duration::from_secs(100);
        let delay = schedule.ended("a", STATE, (LookEnd::Settled, interval), now);
        assert!((90..=110).contains(&delay.as_secs()), "{delay:?}");
        assert_eq!(schedule.wait("a", STATE, now), Some(delay));
        assert_eq!(schedule.wait("a", STATE, now + delay), None);
        let changed = ResourceState { generation: Some(2), ..STATE };
        assert_eq!(schedule.wait("a", changed, now), None);
        assert_eq!(schedule.wait("a", ResourceState { is_deleted: true, ..STATE }, now), None);
        schedule.keep(|uid| uid != "a");
        assert_eq!(schedule.wait("a", STATE, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_later_each_time() {
        let schedule = Schedule::default();
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let mut longest = Duration::ZERO;
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            let delay = schedule.ended("a", STATE, (LookEnd::MayPass, hour), now);
            assert!((delay.as_secs_f64() / f64::from(expected) - 1.0).abs() < 0.11, "{delay:?} {expected}");
            longest = longest.max(delay);
        }
        assert!(longest < Duration::from_secs(67));
        schedule.ended("a", STATE, (LookEnd::Settled, hour), now);
        assert!(schedule.ended("a", STATE, (LookEnd::MayPass, hour), now) < Duration::from_secs(3));
        let short = Duration::from_secs(10);
        let after_a_change = ResourceState { generation: Some(2), ..STATE };
        assert!(schedule.ended("a", after_a_change, (LookEnd::MayPass, short), now) < Duration::from_secs(3));
    }
}
