//! Times as seconds since 1970, and as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as seconds since 1970; before that, 0.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Seconds since 1970 as a date and time, in UTC.
pub(crate) fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    date.map(|date| date.to_string()).unwrap_or_else(|| seconds.to_string())
}
