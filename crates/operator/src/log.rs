//! The log on stderr.

use pgentra_system::System;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::arguments::LineFormat;
use crate::error::OperatorError;

/// Starts the log: what this project says from INFO on, others from WARN on, or as `PGENTRA_LOG` says.
///
/// # Errors
/// `PGENTRA_LOG` is no filter.
pub(crate) fn start(system: &System, format: LineFormat) -> Result<(), OperatorError> {
    let filter = match system.env().get("PGENTRA_LOG") {
        Some(filter) => filter
            .parse()
            .map_err(|source| OperatorError::LogFilter { filter: filter.to_string(), source })?,
        // A target is a prefix: `pgentra` stands for every crate of the workspace.
        None => Targets::new().with_target("pgentra", LevelFilter::INFO).with_default(LevelFilter::WARN),
    };
    let lines = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match format {
        LineFormat::Text => registry.with(lines.compact().with_filter(filter)).init(),
        LineFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).init(),
    }
    Ok(())
}
