//! Writes a server program's messages to stderr, in the format of its log.

use std::sync::Arc;
use std::time::SystemTime;

use pgentra_proxy_config::LogFormat;
use pgentra_system::{Clock, System};
use serde::Serialize;

use crate::output;
use crate::problem::Problem;

/// Writes messages to stderr at any log level.
pub(crate) struct Console {
    format: LogFormat,
    clock: Arc<dyn Clock>,
    /// The target of its lines in JSON.
    target: &'static str,
}

/// A line in the log's JSON format.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    target: &'static str,
}

impl Console {
    pub(crate) fn new(system: &System, format: LogFormat, target: &'static str) -> Self {
        Self { format, clock: system.clock().clone(), target }
    }

    pub(crate) fn say(&self, text: &str) {
        match self.format {
            LogFormat::Text => output::say(text),
            LogFormat::Json => output::say_json(&self.line("INFO", text, None)),
        }
    }

    /// Writes a failure that the program survives.
    pub(crate) fn warn(&self, problem: &Problem) {
        match self.format {
            LogFormat::Text => {
                output::say(&format!("warning: {}", problem.chain()));
                if let Some(hint) = problem.hint_text() {
                    output::say(&format!("hint: {hint}"));
                }
                if let Some(finding) = problem.finding() {
                    output::say(&format!("see: pgentra doctor --explain {}", finding.id()));
                }
            }
            LogFormat::Json => {
                output::say_json(&self.line("WARN", &problem.chain(), problem.hint_text()));
            }
        }
    }

    fn line(&self, level: &'static str, message: &str, hint: Option<&str>) -> String {
        line((self.clock.now(), self.target), level, message, hint)
    }

    pub(crate) fn problem(&self, problem: &Problem) {
        match self.format {
            LogFormat::Text => output::problem(problem),
            LogFormat::Json => {
                output::say_json(&self.line("ERROR", &problem.chain(), problem.hint_text()));
            }
        }
    }
}

fn line(
    (now, target): (SystemTime, &'static str),
    level: &'static str,
    message: &str,
    hint: Option<&str>,
) -> String {
    let timestamp = jiff::Timestamp::try_from(now).map(|now| format!("{now:.6}")).unwrap_or_default();
    // Every field can be written as JSON.
    serde_json::to_string(&Line { timestamp, level, message, hint, target }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_of_the_log() {
        let said = line((SystemTime::UNIX_EPOCH, "pgentra::proxy"), "INFO", "of \"two\"\nlines", None);
        assert_eq!(
            said,
            r#"{"timestamp":"1970-01-01T00:00:00.000000Z","level":"INFO","message":"of \"two\"\nlines","target":"pgentra::proxy"}"#
        );
        assert!(
            line((SystemTime::UNIX_EPOCH, "pgentra::proxy"), "ERROR", "x", Some("y"))
                .contains(r#""hint":"y""#)
        );
    }
}
