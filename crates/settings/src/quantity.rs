//! Parses durations and counts from flags, variables and files.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// A duration with its units (`90s`, `5m`, `1h30m`, `3d`), or a bare number of seconds (`30`,
/// `30.0`). A day has 24 hours. `None`: it is not a duration, or is negative.
pub fn time(text: &str) -> Option<Duration> {
    if let Some(seconds) = number(text) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let span: Span = text.parse().ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

/// A duration within a range of seconds.
///
/// # Errors
///
/// The range, in a text that continues a sentence which begins with the setting.
pub fn time_within(text: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
    time(text).filter(|time| (least..=most).contains(time)).ok_or_else(|| {
        let (least, most) = (shown(least), shown(most));
        format!(
            "takes a time from {least} to {most}, such as 90s, 5m or a bare number of seconds, not `{text}`"
        )
    })
}

/// A whole number within a range. `30.0` is accepted, because some writers of TOML and YAML have
/// floats only.
///
/// # Errors
///
/// The range, in a text that continues a sentence which begins with the setting.
pub fn count_within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    // The shortest form of a whole float has neither a point nor an exponent.
    let whole = || number(text)?.to_string().parse().ok();
    text.parse()
        .ok()
        .or_else(whole)
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("takes a number from {} to {}, not `{text}`", range.start(), range.end()))
}

/// A duration in its largest unit, such as `24h` or `90s`.
pub fn shown(time: Duration) -> String {
    match time.as_secs() {
        0 => "0s".to_owned(),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// A bare number; `inf` and `nan` are not accepted.
fn number(text: &str) -> Option<f64> {
    text.starts_with(|first: char| first.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_are_seconds() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30.0", 30_000),
            ("0", 0),
            ("1.5", 1_500),
            ("5s", 5_000),
            ("90s", 90_000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("25h", 90_000_000),
            ("3d", 259_200_000),
            ("1d 2h", 93_600_000),
            ("2 minutes", 120_000),
            ("500ms", 500),
            ("PT5M", 300_000),
            ("3e1", 30_000),
        ] {
            assert_eq!(time(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in
            ["", "-1", "-1h", "soon", "inf", "nan", "1 month", "1e400", "99999999999999999999d", "5 s x", "s"]
        {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_out_of_its_range_names_the_range() {
        assert_eq!(time_within("5m", 1..=3600), Ok(Duration::from_secs(300)));
        for bad in ["0", "61m", "500ms", "soon"] {
            let error = time_within(bad, 1..=3600).unwrap_err();
            assert!(
                error.starts_with("takes a time from 1s to 1h, such as 90s")
                    && error.ends_with(&format!("not `{bad}`")),
                "{error}"
            );
        }
        assert!(time_within("0", 0..=86_400).is_ok());
    }

    #[test]
    fn a_count_is_whole() {
        for (text, count) in [("20", 20), ("20.0", 20), ("1e6", 1_000_000), ("0", 0)] {
            assert_eq!(count_within(text, 0..=1_000_000), Ok(count), "{text}");
        }
        for bad in ["", "2.5", "-1", "1000001", "many", "inf", "0x10", "1e300", "5m"] {
            let error = count_within(bad, 0..=1_000_000).unwrap_err();
            assert_eq!(error, format!("takes a number from 0 to 1000000, not `{bad}`"));
        }
    }

    #[test]
    fn a_time_is_shown_in_its_largest_unit() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (90, "90s"), (3600, "1h"), (86_400, "24h")]
        {
            assert_eq!(shown(Duration::from_secs(seconds)), text);
        }
    }
}
