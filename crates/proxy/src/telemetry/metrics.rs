//! The metrics for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pgentra_connect::TokenState;
use pgentra_observe::Exposition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::standing::{Standing, TargetState};
use super::{TargetTelemetry, Telemetry};
use crate::servers::{ServerRole, ShownServer};

/// Prefix of every metric's name.
const PREFIX: &str = "pgentra_proxy_";

impl Telemetry {
    /// All metrics: as OpenMetrics if `accept` has that type, else in Prometheus' older text
    /// format.
    pub(crate) fn metrics(&self, accept: &str) -> Exposition {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        Exposition::of(&registry, accept)
    }
}

/// The values of a target at one scrape.
struct Seen {
    target: Arc<TargetTelemetry>,
    token: Option<TokenState>,
    now: SystemTime,
}

/// The values of a metric, each with the value of its label.
type Series = Vec<(String, MetricValue)>;

enum MetricValue {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

impl EncodeMetric for MetricValue {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(value) => ConstCounter::new(*value).encode(encoder),
            Self::Gauge(value) => ConstGauge::new(*value).encode(encoder),
            Self::Histogram(histogram) => histogram.encode(encoder),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }
}

/// The description of a metric.
struct Family<S: ?Sized> {
    name: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
    /// The label in addition to the target's name; empty: none.
    label: &'static str,
    help: &'static str,
    series: fn(&S) -> Series,
}

const SECONDS: Option<Unit> = Some(Unit::Seconds);

/// A value for each server that was asked what it is.
fn each_server(target: &TargetTelemetry, value: fn(&ShownServer) -> bool) -> Series {
    let asked = target.servers().into_iter().filter(|server| server.role != ServerRole::Unknown);
    asked.map(|server| (server.host.clone(), MetricValue::Gauge(value(&server).into()))).collect()
}

/// The metrics of each target.
const OF_TARGETS: [Family<Seen>; 23] = [
    Family {
        name: "connections",
        kind: MetricType::Counter,
        unit: None,
        label: "",
        help: "Client connections that were accepted",
        series: |seen| counter(seen.target.counts.connections.get()),
    },
    Family {
        name: "connections_open",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "Client connections that are open, with or without a session",
        series: |seen| gauge(seen.target.counts.connections_open.get() as f64),
    },
    Family {
        name: "sessions",
        kind: MetricType::Counter,
        unit: None,
        label: "",
        help: "Clients that got a session",
        series: |seen| counter(seen.target.counts.sessions.get()),
    },
    Family {
        name: "sessions_open",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "Sessions that are open",
        series: |seen| gauge(seen.target.counts.sessions_open.get() as f64),
    },
    Family {
        name: "sessions_limit",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "Sessions that may be open at once",
        series: |seen| gauge(seen.target.limit() as f64),
    },
    Family {
        name: "sessions_ended",
        kind: MetricType::Counter,
        unit: None,
        label: "by",
        help: "Sessions that ended: the client hung up, the server did, or the proxy drained it, ended it because its server was demoted, or cut it off",
        series: |seen| each(&seen.target.counts.ends, |count| MetricValue::Counter(count.get())),
    },
    Family {
        name: "session_start",
        kind: MetricType::Histogram,
        unit: SECONDS,
        label: "",
        help: "Time from a client's connection to its session",
        series: |seen| one(MetricValue::Histogram(seen.target.counts.session_start.clone())),
    },
    Family {
        name: "open",
        kind: MetricType::Histogram,
        unit: SECONDS,
        label: "stage",
        help: "Time that opening a session with the server took: waiting for the token, resolving the name, TCP, TLS, sign-in",
        series: |seen| each(&seen.target.counts.stages, |stage| MetricValue::Histogram(stage.clone())),
    },
    Family {
        name: "open_failures",
        kind: MetricType::Counter,
        unit: None,
        label: "reason",
        help: "Sessions with the server that could not be opened, by what failed",
        series: |seen| each(&seen.target.counts.failures, |count| MetricValue::Counter(count.get())),
    },
    Family {
        name: "sessions_ready",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "Server sessions that wait for a client",
        series: |seen| gauge(seen.target.supply().get().ready as f64),
    },
    Family {
        name: "supply",
        kind: MetricType::Counter,
        unit: None,
        label: "result",
        help: "Clients whose session was ready (hit) or was opened for them (miss), where sessions are kept",
        series: |seen| {
            let supply = seen.target.supply().get();
            each(&[("hit", supply.hits), ("miss", supply.misses)], |count| MetricValue::Counter(*count))
        },
    },
    Family {
        name: "sessions_kept",
        kind: MetricType::Counter,
        unit: None,
        label: "from",
        help: "Server sessions that were kept for a client: opened ahead, or left by another client",
        series: |seen| {
            let supply = seen.target.supply().get();
            each(&[("opened", supply.warmed), ("left", supply.reused)], |count| MetricValue::Counter(*count))
        },
    },
    Family {
        name: "refusals",
        kind: MetricType::Counter,
        unit: None,
        label: "sqlstate",
        help: "Clients that were told why they get no session; beyond 64 different codes the rest is `other`",
        series: |seen| {
            let refusals = seen.target.counts.refusals().into_iter();
            refusals.map(|(code, count)| (code, MetricValue::Counter(count))).collect()
        },
    },
    Family {
        name: "cancels",
        kind: MetricType::Counter,
        unit: None,
        label: "result",
        help: "Requests to cancel a statement: passed_on, coalesced (another with the same key was passed on for it), with an unknown_key (a session that is over, or a guess), or failed",
        series: |seen| each(&seen.target.counts.cancels, |count| MetricValue::Counter(count.get())),
    },
    Family {
        name: "transferred",
        kind: MetricType::Counter,
        unit: Some(Unit::Bytes),
        label: "direction",
        help: "Bytes that were relayed, without TLS: to_server, to_client",
        series: |seen| {
            let (to_server, to_client) = seen.target.counts.bytes();
            each(&[("to_server", to_server), ("to_client", to_client)], |count| MetricValue::Counter(*count))
        },
    },
    Family {
        name: "token_age",
        kind: MetricType::Gauge,
        unit: SECONDS,
        label: "",
        help: "Time since the token was obtained; nothing without a token",
        series: |seen| {
            let obtained_on = seen.token.as_ref().and_then(|token| token.obtained_on);
            obtained_on.map_or_else(Vec::new, |then| gauge(between(then, seen.now)))
        },
    },
    Family {
        name: "token_life_left",
        kind: MetricType::Gauge,
        unit: SECONDS,
        label: "",
        help: "Time until the token expires, below zero once it has; nothing without a token",
        series: |seen| {
            let expires_on = seen.token.as_ref().and_then(|token| token.expires_on);
            expires_on.map_or_else(Vec::new, |then| gauge(between(seen.now, then)))
        },
    },
    Family {
        name: "token_requests",
        kind: MetricType::Counter,
        unit: None,
        label: "result",
        help: "Requests for a token, success or failure; targets of one identity share them",
        series: |seen| {
            let Some(token) = &seen.token else { return Vec::new() };
            each(&[("success", token.succeeded), ("failure", token.failed)], |count| {
                MetricValue::Counter(*count)
            })
        },
    },
    Family {
        name: "listeners",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "Listeners that are up",
        series: |seen| gauge(seen.target.listening().len() as f64),
    },
    Family {
        name: "ready",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "1 while the token lives and a listener is up, else 0",
        series: |seen| gauge(f64::from(u8::from(seen.target.readiness(seen.now).is_ok()))),
    },
    Family {
        name: "server_up",
        kind: MetricType::Gauge,
        unit: None,
        label: "server",
        help: "1 while the server tells what it is, 0 while it cannot be reached; nothing before it was asked",
        series: |seen| each_server(&seen.target, |server| server.role != ServerRole::Unreachable),
    },
    Family {
        name: "server_selected",
        kind: MetricType::Gauge,
        unit: None,
        label: "server",
        help: "1 while new sessions go to the server, because it fits target_session_attrs, else 0",
        series: |seen| each_server(&seen.target, |server| server.is_selected),
    },
    Family {
        name: "failing",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "1 while the last sign-in at the server failed, or there is no token or no listener, else 0",
        series: |seen| {
            gauge(f64::from(u8::from(Standing::of(&seen.target, seen.now).state == TargetState::Failing)))
        },
    },
];

/// The metrics of the process.
const OF_PROCESS: [Family<Telemetry>; 3] = [
    Family {
        name: "start_time",
        kind: MetricType::Gauge,
        unit: SECONDS,
        label: "",
        help: "When the proxy was started, in seconds since 1970",
        series: |telemetry| gauge(between(SystemTime::UNIX_EPOCH, telemetry.process.began)),
    },
    Family {
        name: "draining",
        kind: MetricType::Gauge,
        unit: None,
        label: "",
        help: "1 while the proxy is shutting down, else 0",
        series: |telemetry| gauge(f64::from(u8::from(telemetry.stop().is_cancelled()))),
    },
    Family {
        name: "audit_lines_lost",
        kind: MetricType::Counter,
        unit: None,
        label: "",
        help: "Lines of the audit log that could not be written; nothing without an audit log",
        series: |telemetry| telemetry.audit().map_or_else(Vec::new, |audit| counter(audit.lost())),
    },
];

/// The version, as a label of a metric that is always 1.
const BUILD: (&str, &str) = ("pgentra_build", "The version of the proxy");

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.now();
        let see = |target: Arc<TargetTelemetry>| Seen { token: target.token(), target, now };
        let targets: Vec<Seen> = self.targets().into_iter().map(see).collect();
        for family in &OF_TARGETS {
            let of = |seen: &Seen| (Some(seen.target.name().to_owned()), (family.series)(seen));
            family.encode(&mut encoder, targets.iter().map(of).collect())?;
        }
        for family in &OF_PROCESS {
            family.encode(&mut encoder, vec![(None, (family.series)(self))])?;
        }
        encoder
            .encode_descriptor(BUILD.0, BUILD.1, None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

impl<S> Family<S> {
    /// Encodes the series of each target, or of the process.
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, of: Vec<(Option<String>, Series)>) -> fmt::Result {
        // A metric without a value gets no description either.
        if of.iter().all(|(_, series)| series.is_empty()) {
            return Ok(());
        }
        let name = format!("{PREFIX}{}", self.name);
        let mut described = encoder.encode_descriptor(&name, self.help, self.unit.as_ref(), self.kind)?;
        for (target, series) in &of {
            for (label, value) in series {
                let own = Some((self.label, label.as_str())).filter(|_| !self.label.is_empty());
                let labels: Vec<_> = target.iter().map(|name| ("target", name.as_str())).chain(own).collect();
                value.encode(described.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn one(value: MetricValue) -> Series {
    vec![(String::new(), value)]
}

fn counter(value: u64) -> Series {
    one(MetricValue::Counter(value))
}

fn gauge(value: f64) -> Series {
    one(MetricValue::Gauge(value))
}

fn each<T>(named: &[(&'static str, T)], value: impl Fn(&T) -> MetricValue) -> Series {
    named.iter().map(|(name, it)| ((*name).to_owned(), value(it))).collect()
}

/// Seconds from one time to another; negative if the second is earlier.
fn between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::telemetry::AuditLog;

    impl<S> Family<S> {
        fn row(&self, target: &str) -> String {
            let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
            let (total, kind) = match self.kind {
                MetricType::Counter => ("_total", "counter"),
                MetricType::Histogram => ("", "histogram"),
                _ => ("", "gauge"),
            };
            let labels = [target, self.label].map(|label| format!("`{label}`")).join(", ");
            let labels = labels.replace(", ``", "").replace("``", "");
            format!("| `{PREFIX}{}{unit}{total}` | {kind} | {labels} | {} |\n", self.name, self.help)
        }
    }

    fn table() -> String {
        let mut table = "| metric | type | labels | what it tells |\n|---|---|---|---|\n".to_owned();
        table.extend(OF_TARGETS.iter().map(|family| family.row("target")));
        table.extend(OF_PROCESS.iter().map(|family| family.row("")));
        table.push_str(&format!("| `{}_info` | gauge | `version` | {} |\n", BUILD.0, BUILD.1));
        table
    }

    #[test]
    fn the_documentation_has_every_metric() {
        let table = table();
        assert!(
            include_str!("../../../../docs/proxy-observe.md").contains(&table),
            "docs/proxy-observe.md needs this table:\n{table}"
        );
    }

    #[tokio::test]
    async fn both_formats_are_well_formed_and_a_targets_name_is_escaped() {
        let audit = AuditLog::start(Box::new(|| Ok(Box::new(std::io::sink())))).unwrap();
        let telemetry = Telemetry::new(
            || SystemTime::UNIX_EPOCH + Duration::from_secs(9),
            CancellationToken::new(),
            Some(audit),
        );
        let target = telemetry.target("a \"quoted\" \\ name\nof two lines");
        target.counts.refused("28000", "refused");
        let classic = telemetry.metrics("text/plain");
        assert_eq!(classic.content_type, "text/plain; version=0.0.4; charset=utf-8");
        let series =
            r#"pgentra_proxy_refusals_total{target="a \"quoted\" \\ name\nof two lines",sqlstate="28000"} 1"#;
        assert!(classic.text.lines().any(|line| line == series), "{}", classic.text);
        assert!(
            classic.text.lines().any(|line| line == "pgentra_proxy_start_time_seconds 9.0"),
            "{}",
            classic.text
        );
        assert!(!classic.text.contains("token_age"), "there is no token");
        let open = telemetry.metrics("application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        assert!(open.text.ends_with("# EOF\n") && open.content_type.starts_with("application/openmetrics"));
    }
}
