//! Waiting in tests: a condition that is never met fails the test and is named in the failure.
//!
//! All of it counts real time: a paused clock of tokio neither ends a wait nor is advanced by one.
#![expect(clippy::panic, reason = "a failing helper fails its test")]

use std::fmt::Debug;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::park_timeout;
use std::time::Duration;

use tokio::sync::oneshot;

/// The deadline of a test that has no reason for another one: most of what is awaited takes less than a second.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two attempts, so that a waiting test leaves the processor to what it waits for.
const PAUSE: Duration = Duration::from_millis(1);

/// What a condition returns: whether it is met, and the state to show if it never is.
///
/// `true`, `Some` and `Ok` meet it. The value of `Some` or `Ok` is the result of the wait.
pub trait Attempt {
    /// The result of the wait.
    type Value;

    /// The result, or the state in which the condition is not met.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Attempt for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Attempt for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "None".to_owned())
    }
}

impl<T, E: Debug> Attempt for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|state| format!("{state:?}"))
    }
}

/// An attempt that meets the condition with this value; a failure shows the last one.
pub fn holds<T>(value: T, condition: impl FnOnce(&T) -> bool) -> Result<T, T> {
    if condition(&value) { Ok(value) } else { Err(value) }
}

/// Repeats the attempt until the condition is met.
///
/// # Panics
///
/// After the deadline, with `what` and the state that the last attempt found, also if an attempt is still pending.
pub async fn eventually<A: Attempt>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> A,
) -> A::Value {
    let mut last = None;
    let attempts = async {
        loop {
            match attempt().await.outcome() {
                Ok(value) => return value,
                Err(state) => last = Some(state),
            }
            // Real time, which a paused clock does not skip: tokio advances no clock while a blocking task runs.
            let _ = tokio::task::spawn_blocking(|| park_timeout(PAUSE)).await;
        }
    };
    match before(deadline, attempts).await {
        Some(value) => value,
        None => fail(deadline, what, last.as_deref()),
    }
}

/// Waits for a future.
///
/// # Panics
///
/// After the deadline, with `what`.
pub async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match before(deadline, future).await {
        Some(value) => value,
        None => fail(deadline, what, None),
    }
}

/// Repeats the attempt until the condition is met, in tests without a runtime. An attempt that never returns is not
/// interrupted.
///
/// # Panics
///
/// After the deadline, with `what` and the state that the last attempt found.
#[track_caller]
pub fn eventually_blocking<A: Attempt>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> A,
) -> A::Value {
    let (_waiting, mut expired) = timer(deadline);
    loop {
        // Looked at first: the last attempt begins after the deadline, however long the one before took.
        let is_last = expired.try_recv().is_ok();
        match attempt().outcome() {
            Ok(value) => return value,
            Err(state) if is_last => fail(deadline, what, Some(&state)),
            Err(_) => park_timeout(PAUSE),
        }
    }
}

/// The result of the future, or `None` after the deadline.
async fn before<T>(deadline: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (_waiting, expired) = timer(deadline);
    tokio::select! {
        biased;
        value = future => Some(value),
        _ = expired => None,
    }
}

/// Tells in real time that the deadline is over. The timer ends when the sender is dropped.
fn timer(deadline: Duration) -> (mpsc::Sender<()>, oneshot::Receiver<()>) {
    let (waiting, is_waiting) = mpsc::channel();
    let (expire, expired) = oneshot::channel();
    std::thread::spawn(move || {
        if is_waiting.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
            let _ = expire.send(());
        }
    });
    (waiting, expired)
}

#[track_caller]
fn fail(deadline: Duration, what: &str, state: Option<&str>) -> ! {
    match state {
        Some(state) => panic!("not within {deadline:?}: {what}; last state: {state}"),
        None => panic!("not within {deadline:?}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn the_value_of_the_attempt_that_succeeds_is_returned() {
        let mut attempts = 0;
        let third = async || {
            attempts += 1;
            (attempts == 3).then_some(attempts)
        };
        assert_eq!(eventually(DEADLINE, "the third attempt", third).await, 3);
        let mut attempts = 0;
        let third = || {
            attempts += 1;
            if attempts == 3 { Ok(attempts) } else { Err("too early") }
        };
        assert_eq!(eventually_blocking(DEADLINE, "the third attempt", third), 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: the end; last state: 7")]
    async fn a_condition_that_is_never_met_is_named() {
        eventually(SHORT, "the end", async || holds(7, |number| *number == 8)).await;
    }

    #[test]
    #[should_panic(expected = "not within 30ms: the end; last state: false")]
    fn a_condition_that_is_never_met_is_named_without_a_runtime() {
        eventually_blocking(SHORT, "the end", || false);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: an answer")]
    async fn an_attempt_that_never_returns_is_named() {
        eventually(SHORT, "an answer", std::future::pending::<bool>).await;
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: an answer")]
    async fn a_future_that_never_ends_is_named() {
        within(SHORT, "an answer", std::future::pending::<()>()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_does_not_move() {
        let begun = tokio::time::Instant::now();
        let (sender, mut receiver) = oneshot::channel();
        std::thread::spawn(move || {
            park_timeout(SHORT);
            sender.send(7)
        });
        let timer = tokio::spawn(tokio::time::sleep(DEADLINE));
        assert_eq!(eventually(DEADLINE, "the message", async || receiver.try_recv()).await, 7);
        assert!(!timer.is_finished());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
