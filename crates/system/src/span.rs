//! Spans of time as a person reads them.

use std::time::Duration;

/// A span of time for a person: whole seconds from ten on, tenths below, milliseconds below a tenth.
pub fn shown(span: Duration) -> String {
    match span.as_secs_f64() {
        long if long >= 9.95 => format!("{long:.0} s"),
        short if short >= 0.0995 => {
            let tenths = format!("{short:.1}");
            format!("{} s", tenths.strip_suffix(".0").unwrap_or(&tenths))
        }
        tiny => format!("{:.0} ms", tiny * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded() {
        for (span, text) in [
            (Duration::from_nanos(19_999_989_000), "20 s"),
            (Duration::from_secs(90), "90 s"),
            (Duration::from_millis(9_960), "10 s"),
            (Duration::from_millis(2_999), "3 s"),
            (Duration::from_millis(1_250), "1.2 s"),
            (Duration::from_millis(100), "0.1 s"),
            (Duration::from_millis(50), "50 ms"),
            (Duration::ZERO, "0 ms"),
        ] {
            assert_eq!(shown(span), text, "{span:?}");
        }
    }
}
