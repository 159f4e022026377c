//! The last minutes of a target: how many clients came, and how long they waited.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The length of a step in seconds.
pub(super) const STEP: u64 = 10;

/// The number of steps: ten minutes.
pub(super) const STEPS: usize = 60;

/// Steps that make a minute.
const MINUTE: usize = 6;

/// The number of waiting times that are kept.
const WAITS: usize = 256;

/// The clients of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HistoryStep {
    sessions: u32,
    refusals: u32,
}

#[derive(Debug, Default)]
pub(super) struct History(Mutex<HistoryState>);

#[derive(Debug, Default)]
struct HistoryState {
    /// The number of the newest step since 1970.
    now: u64,
    /// The newest last.
    steps: VecDeque<HistoryStep>,
    /// The last waiting times in microseconds.
    waits: VecDeque<u32>,
}

/// The content of a [`History`].
#[derive(Debug, PartialEq)]
pub(super) struct Recent {
    /// Clients that got a session in the last minute.
    pub(super) per_minute: u32,
    /// For each step, the oldest first.
    pub(super) sessions: Vec<u32>,
    pub(super) refusals: Vec<u32>,
    pub(super) waited: Option<Waited>,
}

/// How long the last clients waited for their sessions.
#[derive(Debug, PartialEq)]
pub(super) struct Waited {
    pub(super) p50: Duration,
    pub(super) p95: Duration,
    /// The number of clients.
    pub(super) of: usize,
}

impl History {
    /// Records a client that got a session after this time.
    pub(super) fn began(&self, now: SystemTime, waited: Duration) {
        let mut state = self.state(now);
        if state.waits.len() == WAITS {
            state.waits.pop_front();
        }
        state.waits.push_back(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
        if let Some(step) = state.steps.back_mut() {
            step.sessions = step.sessions.saturating_add(1);
        }
    }

    pub(super) fn refused(&self, now: SystemTime) {
        if let Some(step) = self.state(now).steps.back_mut() {
            step.refusals = step.refusals.saturating_add(1);
        }
    }

    pub(super) fn recent(&self, now: SystemTime) -> Recent {
        let state = self.state(now);
        let sessions: Vec<_> = state.steps.iter().map(|step| step.sessions).collect();
        Recent {
            per_minute: sessions.iter().rev().take(MINUTE).fold(0, |sum, step| sum.saturating_add(*step)),
            refusals: state.steps.iter().map(|step| step.refusals).collect(),
            sessions,
            waited: waited(&state.waits),
        }
    }

    /// The state with a step for this time. The clock may be set: an earlier time counts as the
    /// newest step.
    fn state(&self, now: SystemTime) -> std::sync::MutexGuard<'_, HistoryState> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let step = (seconds / STEP).max(state.now);
        let passed = usize::try_from(step - state.now).unwrap_or(STEPS);
        if state.steps.is_empty() || passed >= STEPS {
            state.steps = VecDeque::from([HistoryStep::default(); STEPS]);
        } else {
            state.steps.rotate_left(passed);
            state.steps.iter_mut().rev().take(passed).for_each(|step| *step = HistoryStep::default());
        }
        state.now = step;
        state
    }
}

fn waited(waits: &VecDeque<u32>) -> Option<Waited> {
    let mut sorted: Vec<_> = waits.iter().copied().collect();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    let at = |percent: usize| {
        let micros = sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1).min(last));
        Duration::from_micros(micros.copied().unwrap_or_default().into())
    };
    Some(Waited { p50: at(50), p95: at(95), of: sorted.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    #[test]
    fn a_step_is_ten_seconds_and_the_oldest_are_forgotten() {
        let history = History::default();
        for second in [0, 9, 10, 65] {
            history.began(at(second), Duration::from_millis(1));
        }
        history.refused(at(66));
        let recent = history.recent(at(69));
        assert_eq!(
            (recent.sessions.len(), recent.per_minute),
            (STEPS, 2),
            "the first step is older than a minute"
        );
        assert_eq!(recent.sessions[STEPS - 7..], [2, 1, 0, 0, 0, 0, 1]);
        assert_eq!(recent.refusals[STEPS - 2..], [0, 1]);
        // The clock is set back, and on.
        history.refused(at(0));
        assert_eq!(history.recent(at(0)).refusals[STEPS - 1], 2);
        assert_eq!(history.recent(at(600)).sessions.iter().sum::<u32>(), 2);
        let recent = history.recent(at(100_000));
        assert_eq!((recent.per_minute, recent.refusals.iter().sum::<u32>()), (0, 0));
        assert!(history.recent(SystemTime::UNIX_EPOCH).waited.is_some());
    }

    #[test]
    fn quantiles_are_those_of_the_last_clients() {
        let history = History::default();
        assert_eq!(history.recent(at(0)).waited, None);
        let seen = |count: u64| {
            for millis in 1..=count {
                history.began(at(0), Duration::from_millis(millis));
            }
            history.recent(at(0)).waited.unwrap()
        };
        let one = Duration::from_millis(1);
        assert_eq!(seen(1), Waited { p50: one, p95: one, of: 1 });
        let waited = seen(1000);
        assert_eq!((waited.of, waited.p50, waited.p95), (WAITS, 872 * one, 988 * one));
    }
}
