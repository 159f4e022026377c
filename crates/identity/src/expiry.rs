//! When a token ends, in every form in which Azure's endpoints say it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil;
use jiff::tz::Offset;
use serde_json::Value;

/// Below this a number is a number of seconds from now, above it a time: MSAL.NET draws the same line, the year 2001.
const RELATIVE_BELOW: f64 = 978_307_200.0;

/// No token is valid for longer than this; a larger value is an error, such as milliseconds for seconds.
const MAX_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Date texts are at most about 35 characters long.
const MAX_TEXT: usize = 64;

/// Reads a time: seconds since 1970 or from now, as a number or in a string, or a date text.
///
/// The date texts are those of RFC 3339, `2020-01-16 05:24:12.123`, and the two of the App Service protocol 2017-09-01:
/// `06/19/2019 23:42:01 +00:00` and `1/16/2020 5:24:12 AM +00:00`. Without an offset they are UTC.
pub(crate) fn parse(value: &Value, now: SystemTime) -> Option<SystemTime> {
    let time = match value {
        Value::Number(number) => seconds(number.as_f64()?, now)?,
        Value::String(text) if text.len() <= MAX_TEXT => {
            let text = text.trim();
            match text.parse::<f64>() {
                Ok(number) => seconds(number, now)?,
                Err(_) => date(text)?,
            }
        }
        _ => return None,
    };
    (time <= now + MAX_LIFE).then_some(time)
}

/// Reads a date text with its offset, as RFC 3339 has it.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = Some(text).filter(|text| text.len() <= MAX_TEXT)?;
    SystemTime::try_from(text.parse::<jiff::Timestamp>().ok()?).ok()
}

/// Reads a number of seconds, as a number or in a string.
pub(crate) fn parse_seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) if text.len() <= MAX_TEXT => text.trim().parse().ok()?,
        _ => return None,
    };
    Duration::try_from_secs_f64(number).ok().filter(|wait| *wait <= MAX_LIFE)
}

fn seconds(number: f64, now: SystemTime) -> Option<SystemTime> {
    let span = Duration::try_from_secs_f64(number).ok()?;
    let start = if number < RELATIVE_BELOW { now } else { UNIX_EPOCH };
    start.checked_add(span)
}

fn date(text: &str) -> Option<SystemTime> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return SystemTime::try_from(time).ok();
    }
    let mut words = text.split_whitespace();
    let day = words.next()?;
    let clock = words.next()?;
    let mut next = words.next();
    let half = next.filter(|word| matches!(*word, "AM" | "PM" | "am" | "pm"));
    if half.is_some() {
        next = words.next();
    }
    let offset = next.map_or(Some(Offset::UTC), parse_offset)?;
    if words.next().is_some() {
        return None;
    }
    let date = parse_day(day)?;
    let time = parse_clock(clock, half)?;
    SystemTime::try_from(offset.to_timestamp(date.to_datetime(time)).ok()?).ok()
}

fn parse_day(text: &str) -> Option<civil::Date> {
    let (year, month, day) = if text.contains('/') {
        let (month, rest) = text.split_once('/')?;
        let (day, year) = rest.split_once('/')?;
        (year, month, day)
    } else {
        let (year, rest) = text.split_once('-')?;
        let (month, day) = rest.split_once('-')?;
        (year, month, day)
    };
    civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn parse_clock(text: &str, half: Option<&str>) -> Option<civil::Time> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let whole = text.split_once('.').map_or(text, |(whole, _fraction)| whole);
    let (hour, rest) = whole.split_once(':')?;
    let (minute, second) = rest.split_once(':')?;
    let hour: i8 = hour.parse().ok()?;
    let hour = match half.map(str::to_ascii_uppercase).as_deref() {
        None => hour,
        Some(_) if !(0..=12).contains(&hour) => return None,
        Some("AM") => hour % 12,
        Some(_) => hour % 12 + 12,
    };
    civil::Time::new(hour, minute.parse().ok()?, second.parse().ok()?, 0).ok()
}

fn parse_offset(text: &str) -> Option<Offset> {
    if matches!(text, "Z" | "UTC" | "GMT") {
        return Some(Offset::UTC);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes))
        .then(|| Offset::from_seconds(sign * (hours * 60 + minutes) * 60).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn every_form_is_read() {
        let now = at(1_800_000_000);
        for (value, expected) in [
            (json!("1800003599"), Some(1_800_003_599)),    // IMDS, App Service
            (json!(1_800_003_599), Some(1_800_003_599)),   // Azure ML, Service Fabric
            (json!(1_800_003_599.0), Some(1_800_003_599)), //
            (json!("3599"), Some(1_800_003_599)),          // relative, as MSAL.NET reads it
            (json!(3599), Some(1_800_003_599)),            //
            (json!("06/19/2019 23:42:01 +00:00"), Some(1_560_987_721)), // App Service 2017, Linux
            (json!("1/16/2020 5:24:12 AM +00:00"), Some(1_579_152_252)), // App Service 2017, Windows
            (json!("1/16/2020 5:24:12 PM +00:00"), Some(1_579_195_452)), //
            (json!("1/16/2020 12:0:12 AM +00:00"), Some(1_579_132_812)), // unpadded, midnight
            (json!("1/16/2020 12:0:12 PM +00:00"), Some(1_579_176_012)), // noon
            (json!("06/19/2019 23:42:01"), Some(1_560_987_721)), //
            (json!("06/20/2019 01:42:01 +02:00"), Some(1_560_987_721)), //
            (json!("2019-06-19 23:42:01"), Some(1_560_987_721)), //
            (json!("2019-06-19 23:42:01.123456"), Some(1_560_987_721)), //
            (json!("2019-06-19T23:42:01Z"), Some(1_560_987_721)), // RFC 3339
            (json!("2019-06-20T01:42:01+02:00"), Some(1_560_987_721)), //
            (json!("soon"), None),
            (json!("13/13/2019 23:42:01 +00:00"), None),
            (json!("1/16/2020 13:24:12 PM +00:00"), None),
            (json!("06/19/2019 23:42:01 +00:00 x"), None),
            (json!(null), None),
            (json!(true), None),
            (json!(""), None),
            (json!(-5), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!(1e300), None),
            (json!(1_800_003_599_000_u64), None), // milliseconds
        ] {
            assert_eq!(parse(&value, now), expected.map(at), "{value}");
        }
    }

    #[test]
    fn a_fraction_is_kept_or_dropped_but_never_an_error() {
        let read = parse(&json!("2019-06-19T23:42:01.5Z"), at(1_800_000_000)).unwrap();
        assert_eq!(read.duration_since(at(1_560_987_721)).unwrap().as_millis(), 500);
    }

    #[test]
    fn seconds_are_read() {
        for (value, expected) in [
            (json!("3599"), Some(3599)),
            (json!(86_400), Some(86_400)),
            (json!("x"), None),
            (json!(-1), None),
        ] {
            assert_eq!(parse_seconds(&value), expected.map(Duration::from_secs), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,70}", number in any::<f64>()) {
            let now = at(1_800_000_000);
            parse(&json!(text), now);
            parse(&json!(number), now);
            parse(&json!(number.to_string()), now);
        }
    }
}
