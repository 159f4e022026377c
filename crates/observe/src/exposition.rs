//! Metrics as text.

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// The content type of OpenMetrics, which newer servers ask for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics as text, and its content type.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// The text.
    pub text: String,
    /// Its content type.
    pub content_type: &'static str,
}

impl Exposition {
    /// All metrics of `registry`: as OpenMetrics if `accept` has that type, else in Prometheus'
    /// older text format.
    pub fn of(registry: &Registry, accept: &str) -> Self {
        let mut written = String::new();
        // Writing into a string does not fail.
        let content_type = if accept.contains("application/openmetrics-text") {
            let _ = text::encode(&mut written, registry);
            OPEN_METRICS
        } else {
            let _ = prometheus_text::encode(&mut written, registry);
            prometheus_text::CONTENT_TYPE
        };
        Self { text: written, content_type }
    }
}
