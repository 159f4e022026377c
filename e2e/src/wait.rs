use std::time::{Duration, Instant};

/// A second on an idle machine; a proxy drains for five seconds where a client stays.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until it is so. What never comes is named and fails the test, instead of keeping all that follow from running.
#[expect(clippy::disallowed_methods, reason = "real programs are waited for, whose clock cannot be paused")]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::yield_now();
    }
}
