//! Printing: results to stdout, all else to stderr. Colour only on a terminal, and never with `NO_COLOR`.

use std::io::{ErrorKind, IsTerminal as _, Write};
use std::sync::OnceLock;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use pgentra_connect::quote;
use pgentra_system::Env;
use serde::Serialize;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::{FormatFields, format};

use crate::problem::{Outcome, Problem};
use crate::text::{Printable, Text};

/// `COLUMNS`, which sets the width of terminals instead of the terminal itself, as in psql.
static COLUMNS: OnceLock<usize> = OnceLock::new();

/// Takes the width of terminals from the environment, if it says one.
pub(crate) fn set_columns(env: &Env) {
    let columns = env.get("COLUMNS").and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    if let Some(columns) = columns {
        // Only the first call counts.
        let _ = COLUMNS.set(columns);
    }
}

/// Whether stdout is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The columns of the terminal for results; `None` if stdout is no terminal, or the width is not
/// known.
pub(crate) fn result_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    columns(terminal_size::terminal_size_of(stdout))
}

/// The same of the terminal for messages.
pub(crate) fn message_width() -> Option<usize> {
    let stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return None;
    }
    columns(terminal_size::terminal_size_of(stderr))
}

fn columns(size: Option<(terminal_size::Width, terminal_size::Height)>) -> Option<usize> {
    COLUMNS.get().copied().or(size.map(|(width, _)| usize::from(width.0)))
}

/// Prints a result for people; on a terminal, in lines of its width. A closed stdout is not an
/// error.
pub(crate) fn result(text: impl Printable) -> Outcome {
    exact(&text.into_text().wrapped(has_colour(&std::io::stdout()), result_width()))
}

/// Prints a result for programs, byte by byte. A closed stdout is not an error.
pub(crate) fn exact(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Problem::ours("cannot write to stdout", error))
        }
        _ => Ok(()),
    }
}

/// Prints a result as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    exact(&format!("{}\n", json_text(value)?))
}

/// A JSON document of several lines, in which terminal control characters are escaped.
pub(crate) fn json_text(value: &(impl Serialize + ?Sized)) -> Outcome<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Problem::ours("cannot render JSON", error))?;
    Ok(shown_json(&text))
}

/// Prints a JSON log line on stderr. A closed stderr is not an error.
pub(crate) fn say_json(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", shown_json(line));
}

/// Prints a message on stderr. A closed stderr is not an error.
pub(crate) fn say(text: impl Printable) {
    let mut text = text.into_text();
    text.push("\n");
    to_stderr(&text);
}

/// Prints a failure that does not end the program on stderr. A closed stderr is not an error.
pub(crate) fn problem(problem: &Problem) {
    to_stderr(&problem.text());
}

/// Prints text on stderr without a line end: a question that waits for the answer, or whole lines.
pub(crate) fn ask(text: impl Printable) {
    to_stderr(&text.into_text());
}

/// Whether a stream has colour. The output itself is not written through anstream, which would
/// remove escape codes from data.
pub(crate) fn has_colour(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// The fields of a log event as text: `name=value`, invisible characters escaped, further lines
/// indented.
pub(crate) fn log_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|out, field, value| {
        let text = quote::lines(&format!("{value:?}")).replace('\n', "\n    ");
        match field.name() {
            "message" => write!(out, "{text}"),
            name => write!(out, "{name}={text}"),
        }
    })
    .delimited(" ")
}

/// The flag with which another process of this program logs as much as this one; `None` for warnings
/// alone.
pub(crate) fn log_flag() -> Option<&'static str> {
    if tracing::enabled!(tracing::Level::DEBUG) {
        Some("-vv")
    } else if tracing::enabled!(tracing::Level::INFO) {
        Some("-v")
    } else {
        None
    }
}

fn to_stderr(text: &Text) {
    let colour = has_colour(&std::io::stderr());
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.wrapped(colour, message_width()).as_bytes()).and_then(|()| out.flush());
}

/// JSON with escapes for all terminal control characters in strings. JSON itself requires them
/// below U+0020 only.
fn shown_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for char in json.chars() {
        match char >= '\u{7f}' && quote::is_hidden(char) {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(char))),
            false => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_and_shows_it() {
        let value = "a\u{7f}\u{9b}31m\u{202e}\u{2069}\u{1b}\n日本語";
        let shown = shown_json(&serde_json::to_string(value).unwrap());
        assert!(!shown.chars().any(quote::is_hidden), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
    }
}
