//! What a gateway shows of itself: metrics, readiness and the audit log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use hyper::header::HeaderMap;
use hyper::{Method, Uri};
use pgentra_observe::http::{HttpReply, Observable, close_pools, status_page};
use pgentra_observe::{AuditLog, Exposition};
use pgentra_verify::Rejection;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Gateway;
use crate::live::LiveSessions;
use crate::login_log::LoginLog;
use crate::observed::{LoginEvent, LoginObserver};

/// Prefix of every metric's name.
const PREFIX: &str = "pgentra_gateway";
/// Upper bounds of the time of a sign-in, in seconds.
const SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The status page.
const PAGE: &str = include_str!("status.html");

type Labels = Vec<(&'static str, String)>;

/// The telemetry of a process. Clones share one state. The default one is for a gateway that nothing
/// looks at.
#[derive(Clone)]
pub struct GatewayTelemetry(Arc<GatewayProcess>);

struct GatewayProcess {
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    instance: Uuid,
    stop: CancellationToken,
    started: AtomicBool,
    audit: Option<AuditLog>,
    observer: Option<LoginObserver>,
    sessions: AtomicU64,
    counts: GatewayCounts,
    servers: Mutex<BTreeMap<String, ServedServer>>,
    began: SystemTime,
    logins: LoginLog,
    live: LiveSessions,
}

/// A server, and what keeps it from signing clients in.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServedServer {
    pub(crate) gateway: Weak<Gateway>,
    pub(crate) keys: Option<String>,
    pub(crate) mapping: Option<String>,
    /// When the mapping was read, the last time that it could be.
    pub(crate) mapping_read: Option<SystemTime>,
    /// The version of PostgreSQL and the number of mapped roles, once they are known.
    pub(crate) checked: Option<(String, usize)>,
}

/// The numbers of a process.
#[derive(Clone)]
pub(crate) struct GatewayCounts {
    pub(crate) connections: Counter,
    pub(crate) connections_open: Gauge,
    /// Open sessions of all servers.
    pub(crate) with_session: Gauge,
    pub(crate) sessions: Family<Labels, Counter>,
    pub(crate) sessions_open: Family<Labels, Gauge>,
    pub(crate) ended: Family<Labels, Counter>,
    pub(crate) refused: Family<Labels, Counter>,
    pub(crate) tokens: Family<Labels, Counter>,
    pub(crate) mapping_failures: Family<Labels, Counter>,
    pub(crate) upstream_failures: Family<Labels, Counter>,
    /// Sessions that wait for a client.
    pub(crate) sessions_ready: Family<Labels, Gauge>,
    /// Logins that got such a session or a new one.
    pub(crate) supply: Family<Labels, Counter>,
    pub(crate) opened_ahead: Family<Labels, Counter>,
    /// Questions to the directory.
    pub(crate) directory: Family<Labels, Counter>,
    pub(crate) sign_in: Family<Labels, Histogram, fn() -> Histogram>,
}

impl GatewayTelemetry {
    /// The telemetry of a process that starts now. `clock` is the time of day; `stop` is cancelled
    /// when the process is to end. Sessions are written to `audit` if there is one.
    pub fn new(
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
        stop: CancellationToken,
        audit: Option<AuditLog>,
    ) -> Self {
        Self::of(Box::new(clock), stop, audit, None)
    }

    /// The telemetry of a gateway that a program embeds to watch its logins: `observer` is called
    /// with each decision about a client, on the task of that client, and must not wait. There is no
    /// audit log.
    pub fn observed(observer: impl Fn(&LoginEvent<'_>) + Send + Sync + 'static) -> Self {
        let clock = Box::new(|| SystemTime::UNIX_EPOCH);
        Self::of(clock, CancellationToken::new(), None, Some(Box::new(observer)))
    }

    fn of(
        clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
        stop: CancellationToken,
        audit: Option<AuditLog>,
        observer: Option<LoginObserver>,
    ) -> Self {
        Self(Arc::new(GatewayProcess {
            began: clock(),
            logins: LoginLog::default(),
            live: LiveSessions::default(),
            clock,
            instance: Uuid::new_v4(),
            stop,
            started: AtomicBool::new(false),
            audit,
            observer,
            sessions: AtomicU64::new(0),
            counts: GatewayCounts::default(),
            servers: Mutex::default(),
        }))
    }

    /// Records that every listener is up.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// Names the servers that are served now. What is known of one that stays is kept.
    pub fn serve(&self, served: impl IntoIterator<Item = (String, Weak<Gateway>)>) {
        let mut servers = self.servers();
        let mut known = std::mem::take(&mut *servers);
        servers.extend(served.into_iter().map(|(name, gateway)| {
            let unknown = || ServedServer {
                keys: Some("the signing keys were not fetched yet".to_owned()),
                ..ServedServer::default()
            };
            let server = known.remove(&name).unwrap_or_else(unknown);
            (name, ServedServer { gateway, ..server })
        }));
    }

    /// Records what a check of a server found: the version of PostgreSQL and the number of mapped
    /// roles, or why the mapping cannot be read.
    pub fn checked(&self, server: &str, found: Result<(String, usize), String>) {
        self.mapping(server, found.as_ref().err().cloned());
        if let (Ok(found), Some(served)) = (found, self.servers().get_mut(server)) {
            served.checked = Some(found);
        }
    }

    /// Records whether the signing keys of a server's tenants can be had.
    pub fn keys(&self, server: &str, reason: Option<String>) {
        if let Some(served) = self.servers().get_mut(server) {
            served.keys = reason;
        }
    }

    /// Records whether the mapping of a server can be read.
    pub fn mapping(&self, server: &str, reason: Option<String>) {
        if reason.is_some() {
            self.counts().mapping_failures.get_or_create(&of(server)).inc();
        }
        let now = self.now();
        if let Some(served) = self.servers().get_mut(server) {
            if reason.is_none() {
                served.mapping_read = Some(now);
            }
            served.mapping = reason;
        }
    }

    /// Records that a new mapping file has faults, so that the one before stays in use.
    pub fn mapping_refused(&self, server: &str) {
        self.counts().mapping_failures.get_or_create(&of(server)).inc();
    }

    /// Whether clients are to be sent here: at least one server has keys and a mapping.
    ///
    /// # Errors
    /// The reason in words, a line for each server that lacks something.
    pub fn ready(&self) -> Result<String, String> {
        if self.0.stop.is_cancelled() {
            return Err("draining: no new clients are let in".to_owned());
        }
        if !self.0.started.load(Ordering::Acquire) {
            return Err("starting: the listeners are not up yet".to_owned());
        }
        let servers = self.servers();
        let lines: Vec<_> = servers
            .iter()
            .filter_map(|(name, served)| {
                let reason = served.lacks()?;
                Some(format!("{name}: {reason}"))
            })
            .collect();
        match lines.len() {
            0 => Ok("ready".to_owned()),
            failing if failing < servers.len() => Ok(format!("ready\n{}", lines.join("\n"))),
            _ => Err(lines.join("\n")),
        }
    }

    /// The number of clients that have a session.
    pub fn sessions(&self) -> usize {
        usize::try_from(self.0.counts.with_session.get()).unwrap_or_default()
    }

    /// Ends the sessions that wait for clients with this database, or all of them, and returns their
    /// number. None waits again until a client asks.
    async fn close_waiting(&self, database: Option<&str>) -> usize {
        let gateways: Vec<_> =
            self.servers().values().filter_map(|served| served.gateway.upgrade()).collect();
        let mut closed = 0;
        for pool in gateways.iter().flat_map(|gateway| &*gateway.all_waiting) {
            closed += pool.idle.end_all(database.map(str::as_bytes)).await;
        }
        closed
    }

    /// The gauge of the sessions that wait for clients at a server.
    pub(crate) fn sessions_ready(&self, server: &str) -> Gauge {
        self.counts().sessions_ready.get_or_create(&of(server)).clone()
    }

    pub(crate) fn counts(&self) -> &GatewayCounts {
        &self.0.counts
    }

    pub(crate) fn audit(&self) -> Option<&AuditLog> {
        self.0.audit.as_ref()
    }

    /// The last logins.
    pub fn logins(&self) -> &LoginLog {
        &self.0.logins
    }

    pub(crate) fn live(&self) -> &LiveSessions {
        &self.0.live
    }

    /// When the process began.
    pub(crate) fn began(&self) -> SystemTime {
        self.0.began
    }

    /// Writes the login down, and tells the program that watches.
    pub(crate) fn tell(&self, event: &LoginEvent<'_>) {
        self.0.logins.write(event, self.now());
        if let Some(observer) = &self.0.observer {
            observer(event);
        }
    }

    pub(crate) fn instance(&self) -> Uuid {
        self.0.instance
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.0.clock)()
    }

    /// The number of the next session: 1, 2, 3 and so on.
    pub(crate) fn next_session(&self) -> u64 {
        self.0.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn servers(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, ServedServer>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for GatewayTelemetry {
    fn default() -> Self {
        Self::new(|| SystemTime::UNIX_EPOCH, CancellationToken::new(), None)
    }
}

impl fmt::Debug for GatewayTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayTelemetry").finish_non_exhaustive()
    }
}

impl Observable for GatewayTelemetry {
    fn has_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    async fn readiness(&self) -> Result<String, String> {
        self.ready()
    }

    fn metrics(&self, accept: &str) -> Exposition {
        Exposition::of(&self.registry(), accept)
    }

    fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    async fn admin(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> Option<HttpReply> {
        if uri.path() == "/pool/close" {
            let close = async |database: Option<String>| self.close_waiting(database.as_deref()).await;
            return Some(close_pools(method, headers, uri.query(), close).await);
        }
        status_page(method, uri.path(), PAGE, || self.status())
    }
}

impl ServedServer {
    /// What keeps the server from signing clients in.
    pub(crate) fn lacks(&self) -> Option<&str> {
        self.keys.as_deref().or(self.mapping.as_deref())
    }
}

impl GatewayTelemetry {
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let counts = self.counts().clone();
        registry.register("connections", "Client connections that were accepted", counts.connections);
        registry.register("connections_open", "Client connections that are open", counts.connections_open);
        registry.register("sessions", "Clients that got a session", counts.sessions);
        registry.register("sessions_open", "Sessions that are open", counts.sessions_open);
        registry.register("sessions_ended", "Sessions that ended, by what ended them", counts.ended);
        registry.register(
            "clients_refused",
            "Clients that got an error instead of a session",
            counts.refused,
        );
        registry.register("tokens", "Access tokens that clients sent, by the result", counts.tokens);
        let help = "Reads of the mapping of roles that failed";
        registry.register("mapping_failures", help, counts.mapping_failures);
        let help = "Sign-ins at the server that failed for another reason than the client's request";
        registry.register("upstream_failures", help, counts.upstream_failures);
        registry.register("sessions_ready", "Sessions that wait for a client", counts.sessions_ready);
        let help = "Logins whose session was ready (hit) or was opened for them (miss), where sessions wait for clients";
        registry.register("supply", help, counts.supply);
        let help = "Sessions that were opened before a client asked for them, by the result";
        registry.register("sessions_opened_ahead", help, counts.opened_ahead);
        let help = "Questions to Microsoft Graph about principals, by the result";
        registry.register("directory_questions", help, counts.directory);
        let help = "Time from a client's connection to its session";
        registry.register_with_unit("sign_in", help, Unit::Seconds, counts.sign_in);
        let (ready, lost) = (Gauge::<i64>::default(), Counter::<u64>::default());
        ready.set(i64::from(self.ready().is_ok()));
        registry.register("ready", "Whether clients are to be sent here", ready);
        lost.inc_by(self.audit().map_or(0, AuditLog::lost));
        registry.register("audit_lines_lost", "Lines of the audit log that could not be written", lost);
        let keys = Family::<Labels, Gauge>::default();
        for (name, served) in &*self.servers() {
            keys.get_or_create(&of(name)).set(i64::from(served.keys.is_none()));
        }
        registry.register("keys_available", "Whether the signing keys of every tenant can be had", keys);
        registry
    }
}

impl Default for GatewayCounts {
    fn default() -> Self {
        Self {
            connections: Counter::default(),
            connections_open: Gauge::default(),
            with_session: Gauge::default(),
            sessions: Family::default(),
            sessions_open: Family::default(),
            ended: Family::default(),
            refused: Family::default(),
            tokens: Family::default(),
            mapping_failures: Family::default(),
            upstream_failures: Family::default(),
            sessions_ready: Family::default(),
            supply: Family::default(),
            opened_ahead: Family::default(),
            directory: Family::default(),
            sign_in: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        }
    }
}

/// The label of a server.
pub(crate) fn of(server: &str) -> Labels {
    vec![("server", server.to_owned())]
}

/// The labels of a server and one more.
pub(crate) fn with(server: &str, name: &'static str, value: &str) -> Labels {
    vec![("server", server.to_owned()), (name, value.to_owned())]
}

/// The result of a token, as the metric names it.
pub(crate) fn result(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::NotAToken(_) => "no_token",
        Rejection::Algorithm => "algorithm",
        Rejection::UnknownKey => "unknown_key",
        Rejection::KeysUnavailable(_) => "keys_unavailable",
        Rejection::Signature => "signature",
        Rejection::Expired => "expired",
        Rejection::NotYetValid => "not_yet_valid",
        Rejection::Audience { .. } => "audience",
        Rejection::Issuer => "issuer",
        Rejection::Tenant => "tenant",
        _ => "claims",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let stop = CancellationToken::new();
        let telemetry = GatewayTelemetry::new(|| SystemTime::UNIX_EPOCH, stop.clone(), None);
        assert!(telemetry.ready().unwrap_err().starts_with("starting"));
        telemetry.started();
        telemetry.serve(["a", "b"].map(|name| (name.to_owned(), Weak::new())));
        assert_eq!(telemetry.ready().unwrap_err().lines().count(), 2);
        telemetry.keys("a", None);
        assert_eq!(telemetry.ready().unwrap(), "ready\nb: the signing keys were not fetched yet");
        telemetry.keys("b", None);
        telemetry.serve([("b".to_owned(), Weak::new())]);
        assert_eq!(telemetry.ready().unwrap(), "ready");
        telemetry.mapping("b", Some("no table".to_owned()));
        assert_eq!(telemetry.ready().unwrap_err(), "b: no table");
        let text = Observable::metrics(&telemetry, "").text;
        assert!(text.contains("pgentra_gateway_mapping_failures_total{server=\"b\"} 1"), "{text}");
        assert!(text.contains("pgentra_gateway_keys_available{server=\"b\"} 1"), "{text}");
        stop.cancel();
        assert!(telemetry.ready().unwrap_err().starts_with("draining"));
    }
}
