use std::thread::park_timeout;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(10);
/// A minute of pauses; most conditions hold within a second.
const PAUSES: usize = 6000;

/// Waits until a condition holds. After a minute the test fails with the condition's description.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PAUSES {
        if is_so() {
            return;
        }
        park_timeout(PAUSE);
    }
    panic!("it did not come: {what}");
}
