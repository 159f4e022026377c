//! The state of a target: serving, idle or failing.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::TargetTelemetry;
use super::outcome::SignInOutcome;
use pgentra_observe::rfc3339;

/// The state of a target, by its last events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetState {
    /// The last sign-in failed, or there is no token or no listener.
    Failing,
    /// Sessions are open.
    Serving,
    /// No session is open, and no failure is known.
    Idle,
}

impl TargetState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Serving => "serving",
            Self::Idle => "idle",
        }
    }
}

/// A state with its reason.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) state: TargetState,
    /// Why it fails, in words.
    pub(super) cause: Option<String>,
    /// The result of the last sign-in.
    pub(super) last: Option<SignInOutcome>,
}

impl Standing {
    pub(super) fn of(target: &TargetTelemetry, now: SystemTime) -> Self {
        let last = target.last();
        let failed = last.as_ref().and_then(|last| last.failure.as_ref());
        let lack = target.readiness(now).err().filter(|lack| !lack.is_pending);
        let cause = lack.map(|lack| lack.cause()).or_else(|| Some(failed?.cause.to_owned()));
        let state = match cause {
            Some(_) => TargetState::Failing,
            None if target.counts.sessions_open.get() > 0 => TargetState::Serving,
            None => TargetState::Idle,
        };
        Self { state, cause, last }
    }
}

/// The states of all targets of a process. `Display` is a line with their numbers, and a line for
/// each that fails.
#[derive(Clone, Debug)]
pub struct Summary {
    states: Vec<TargetState>,
    failing: Vec<Failing>,
}

#[derive(Clone, Debug)]
struct Failing {
    name: String,
    cause: String,
    /// The time of the first failure and the last SQLSTATE, if sign-ins fail.
    sign_in: Option<(SystemTime, String)>,
}

impl Summary {
    pub(super) fn of(targets: &[Arc<TargetTelemetry>], now: SystemTime) -> Self {
        let mut summary = Self { states: Vec::new(), failing: Vec::new() };
        for target in targets {
            let Standing { state, cause, last } = Standing::of(target, now);
            summary.states.push(state);
            if let Some(cause) = cause {
                let failure = last.and_then(|last| last.failure);
                let sign_in = failure.map(|failure| (failure.since, failure.sqlstate));
                summary.failing.push(Failing { name: target.name().to_owned(), cause, sign_in });
            }
        }
        summary
    }

    /// The number of targets that have open sessions and did not fail last.
    pub fn serving(&self) -> usize {
        self.count(TargetState::Serving)
    }

    /// The number of targets that have no session and no known failure.
    pub fn idle(&self) -> usize {
        self.count(TargetState::Idle)
    }

    /// The number of targets that failed last, or lack a token or a listener.
    pub fn failing(&self) -> usize {
        self.count(TargetState::Failing)
    }

    /// Each failing target with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.failing.iter().map(|failing| (&*failing.name, &*failing.cause))
    }

    fn count(&self, state: TargetState) -> usize {
        self.states.iter().filter(|one| **one == state).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.states.len();
        let s = if total == 1 { "" } else { "s" };
        write!(
            f,
            "{total} target{s}: {} serving, {} idle, {} failing",
            self.serving(),
            self.idle(),
            self.failing()
        )?;
        for Failing { name, cause, sign_in } in &self.failing {
            write!(f, "\nfailing: {name}: {cause}")?;
            if let Some((since, sqlstate)) = sign_in {
                write!(f, " (SQLSTATE {sqlstate}, since {})", rfc3339(*since))?;
            }
        }
        Ok(())
    }
}
