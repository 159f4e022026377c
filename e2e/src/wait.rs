use std::thread::park_timeout;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(10);
/// A minute of them, where most of what is waited for takes less than a second.
const PAUSES: usize = 6000;

/// Waits until it is so. What never comes is named and fails the test, instead of keeping all that follow from running.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PAUSES {
        if is_so() {
            return;
        }
        park_timeout(PAUSE);
    }
    panic!("it did not come: {what}");
}
