//! Shows progress: a spinner on a terminal. Elsewhere each step of a start is a line, and waits are
//! silent. `NO_COLOR` does not matter, because the spinner has no colour.

use std::io::IsTerminal;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::output;
use crate::text::Printable;

/// Redraw interval of the spinner.
const TICK: Duration = Duration::from_millis(100);
/// Shorter waits are not shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// The prefix of a step without a spinner.
pub(crate) const STEP: &str = "… ";

/// The wait that this process shows now.
static SHOWN: Mutex<Shown> = Mutex::new(Shown { bar: None, detail: None });

#[derive(Default)]
struct Shown {
    bar: Option<ProgressBar>,
    /// Further detail of the wait, such as the number of the attempt.
    detail: Option<String>,
}

fn shown() -> MutexGuard<'static, Shown> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// Waits for `work`. On a terminal a wait of more than a second is shown with its purpose: `waiting
/// for …`.
pub(crate) async fn waiting<T>(doing: &str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let mut work = pin!(work);
    shown().detail = None;
    if let Ok(done) = timeout(PATIENCE, &mut work).await {
        return done;
    }
    let _cleared = Cleared;
    {
        let mut shown = shown();
        let bar = spinner().with_elapsed(PATIENCE);
        bar.set_message(shown.detail.clone().unwrap_or_else(|| doing.to_owned()));
        shown.bar = Some(bar);
    }
    work.await
}

/// Removes the spinner, also when the wait is dropped.
struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        if let Some(bar) = std::mem::take(&mut *shown()).bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes to the terminal while a spinner may be shown.
pub(crate) fn suspend<T>(write: impl FnOnce() -> T) -> T {
    let bar = shown().bar.clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A writer to stderr that suspends the spinner.
pub(crate) struct Stderr;

impl std::io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        suspend(|| std::io::stderr().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A log layer that shows the number of the attempt in the spinner, from the retry events of the
/// token sources.
pub(crate) struct Tries;

/// The target of the retry events.
pub(crate) const RETRIES: &str = "pgentra_identity::retry";

impl<S: Subscriber> Layer<S> for Tries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut retry = Retry::default();
        event.record(&mut retry);
        if let Some(text) = retry.text() {
            let mut shown = shown();
            if let Some(bar) = &shown.bar {
                bar.set_message(text.clone());
            }
            shown.detail = Some(text);
        }
    }
}

#[derive(Default)]
struct Retry {
    source: String,
    attempts: u64,
    of: u64,
}

impl Retry {
    fn text(&self) -> Option<String> {
        let service = match self.source.as_str() {
            "" => return None,
            "imds" => "the metadata service".to_owned(),
            source => format!("the token service of {source}"),
        };
        // The next attempt; a restart of the metadata service has no attempt limit.
        let next = self.attempts + 1;
        Some(match next <= self.of {
            true => format!("waiting for {service}, try {next} of {}", self.of),
            false => format!("waiting for {service}, try {next}"),
        })
    }
}

impl Visit for Retry {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "attempts" => self.attempts = value,
            "of" => self.of = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "source" {
            self.source = format!("{value:?}");
        }
    }
}

/// Shows the steps of a start on stderr.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A display for this process's stderr.
    pub(crate) fn new() -> Self {
        Self { bar: std::io::stderr().is_terminal().then(spinner) }
    }

    /// Shows the current step.
    pub(crate) fn show(&self, doing: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(doing.to_owned()),
            None => output::say(&format!("{STEP}{doing}")),
        }
    }

    /// Prints lines above the spinner.
    pub(crate) fn say(&self, text: impl Printable) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::say(text)),
            None => output::say(text),
        }
    }

    /// Removes the spinner.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_told_with_its_number() {
        let retry = |source: &str, attempts, of| Retry { source: source.to_owned(), attempts, of }.text();
        assert_eq!(retry("imds", 2, 6).as_deref(), Some("waiting for the metadata service, try 3 of 6"));
        assert_eq!(
            retry("app-service", 1, 5).as_deref(),
            Some("waiting for the token service of app-service, try 2 of 5")
        );
        assert_eq!(retry("imds", 9, 6).as_deref(), Some("waiting for the metadata service, try 10"));
        assert_eq!(retry("", 1, 1), None);
    }
}
