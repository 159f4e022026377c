//! The content of the status page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use pgentra_session::traffic::Activity;
use serde::Serialize;

use super::connect_with::ConnectWith;
use super::history::{Recent, STEP};
use super::live::LiveSession;
use super::outcome::SignInOutcome;
use super::standing::Standing;
use super::{TargetTelemetry, Telemetry};
use crate::servers::ShownServer;
use pgentra_observe::rfc3339;

/// The number of sessions that are shown; the rest are counted.
const SESSIONS: usize = 100;

/// The document of `/status.json`. Times are RFC 3339 in UTC.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    version: &'static str,
    /// `ready`, or why not.
    state: &'static str,
    reason: Option<String>,
    now: String,
    started: String,
    uptime_seconds: u64,
    summary: Summary,
    /// Failing ones first, then serving ones.
    targets: Vec<TargetStatus>,
    /// The identities of the targets' tokens, each once.
    identities: Vec<TokenStatus>,
    /// Open sessions: busy ones first, then those in a transaction, the oldest first of each.
    sessions: Vec<SessionStatus>,
    /// The number of other open sessions.
    sessions_not_shown: usize,
    problems: Vec<ProblemStatus>,
}

/// The number of targets in each state.
#[derive(Debug, Serialize)]
struct Summary {
    serving: usize,
    idle: usize,
    failing: usize,
}

#[derive(Debug, Serialize)]
struct TargetStatus {
    name: String,
    /// The server, role and database of the target.
    server: Option<String>,
    /// Each server, if the proxy asks them what they are.
    servers: Vec<TargetServer>,
    listening: Vec<String>,
    /// `serving`, `idle` or `failing`.
    state: &'static str,
    cause: Option<String>,
    last_sign_in: Option<SignIn>,
    /// Whether it has a token and a listener.
    ready: bool,
    sessions: Sessions,
    session_start: Option<SessionStart>,
    recent: Steps,
    connect_with: Vec<ConnectWith>,
    supply: PoolStats,
    bytes_to_server: u64,
    bytes_to_client: u64,
    refusals: BTreeMap<String, u64>,
    /// The last message of each SQLSTATE.
    refusal_messages: BTreeMap<String, String>,
    /// Index into `identities`.
    identity: Option<usize>,
}

/// A server of a target.
#[derive(Debug, Serialize)]
struct TargetServer {
    host: String,
    /// `primary`, `read-only primary`, `standby`, `unreachable` or `unknown`.
    role: &'static str,
    /// Whether new sessions go to it.
    selected: bool,
}

/// The last sign-in at the server that shows the state of the target.
#[derive(Debug, Serialize)]
struct SignIn {
    time: String,
    ok: bool,
    /// The time of the first failure in a row.
    failing_since: Option<String>,
    failures: u64,
    sqlstate: Option<String>,
    cause: Option<&'static str>,
    message: Option<String>,
}

#[derive(Debug, Serialize)]
struct Sessions {
    open: i64,
    limit: usize,
    total: u64,
    signing_in: i64,
}

/// How long the last clients waited, from their connection to their session.
#[derive(Debug, Serialize)]
struct SessionStart {
    p50_seconds: f64,
    p95_seconds: f64,
    /// The number of clients.
    of: usize,
}

/// The last ten minutes, in steps. The newest is the last and is not over.
#[derive(Debug, Serialize)]
struct Steps {
    /// Clients that got a session in the last minute.
    sessions_per_minute: u32,
    step_seconds: u64,
    sessions: Vec<u32>,
    refusals: Vec<u32>,
}

/// An open session.
#[derive(Debug, Serialize)]
struct SessionStatus {
    target: String,
    client: String,
    client_role: Option<String>,
    role: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    /// As in `pg_stat_activity`.
    state: &'static str,
    began: String,
    age_seconds: u64,
    backend_pid: Option<u32>,
    bytes_to_server: u64,
    bytes_to_client: u64,
}

/// All zero if no sessions are pooled.
#[derive(Debug, Serialize)]
struct PoolStats {
    ready: u64,
    hits: u64,
    misses: u64,
    reused: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct TokenStatus {
    /// Roles that fit the identity: the names that are in the token.
    role_names: Vec<String>,
    source: Option<String>,
    asked_for: String,
    tenant: Option<String>,
    object_id: Option<String>,
    client_id: Option<String>,
    obtained: Option<String>,
    expires: Option<String>,
    /// From when the token was obtained until it expires.
    life_seconds: Option<u64>,
    left_seconds: Option<u64>,
    succeeded: u64,
    failed: u64,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct ProblemStatus {
    time: String,
    target: String,
    client: String,
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    role: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
}

impl Telemetry {
    pub(crate) fn status(&self) -> Status {
        let now = self.now();
        let reason = self.readiness().err();
        let problem = |problem: super::problems::RefusedClient| ProblemStatus {
            time: rfc3339(problem.time),
            target: problem.target,
            client: problem.client,
            sqlstate: problem.sqlstate,
            message: problem.message,
            detail: problem.detail,
            hint: problem.hint,
            role: problem.role,
            database: problem.database,
            application_name: problem.application_name,
        };
        let (sessions, sessions_not_shown) = self.sessions(now);
        let mut identities = Vec::new();
        let mut targets: Vec<_> = self
            .targets()
            .iter()
            .map(|target| {
                let standing = Standing::of(target, now);
                (standing.state, TargetStatus::of(target, standing, now, &mut identities))
            })
            .collect();
        targets.sort_by_key(|(state, _)| *state);
        let summary = self.summary();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            state: match &reason {
                None => "ready",
                Some(_) if self.stop().is_cancelled() => "draining",
                Some(_) if !self.has_started() => "starting",
                Some(_) => "not ready",
            },
            reason,
            now: rfc3339(now),
            started: rfc3339(self.process.began),
            uptime_seconds: now.duration_since(self.process.began).unwrap_or_default().as_secs(),
            summary: Summary { serving: summary.serving(), idle: summary.idle(), failing: summary.failing() },
            targets: targets.into_iter().map(|(_, target)| target).collect(),
            identities,
            sessions,
            sessions_not_shown,
            problems: self.process.problems.newest().into_iter().map(problem).collect(),
        }
    }
}

impl Telemetry {
    /// The open sessions to show, and the number of the others.
    fn sessions(&self, now: SystemTime) -> (Vec<SessionStatus>, usize) {
        let (mut first, mut open) = (Vec::new(), 0);
        for target in self.targets() {
            open += usize::try_from(target.counts.sessions_open.get()).unwrap_or_default();
            let shown = target.counts.first(SESSIONS);
            first.extend(
                shown.into_iter().map(|(activity, session)| (activity, session, Arc::clone(&target))),
            );
        }
        first.sort_by_key(|(activity, session, _)| (*activity, session.began));
        first.truncate(SESSIONS);
        let shown: Vec<_> = first
            .iter()
            .map(|(activity, session, target)| SessionStatus::of(*activity, session, target, now))
            .collect();
        let rest = open.saturating_sub(shown.len());
        (shown, rest)
    }
}

impl SessionStatus {
    fn of(activity: Activity, session: &LiveSession, target: &TargetTelemetry, now: SystemTime) -> Self {
        let LiveSession { traffic, names, client, began, backend_pid } = session;
        let age = began.elapsed();
        Self {
            target: target.name().to_owned(),
            client: client.to_string(),
            client_role: names.client_role.clone(),
            role: names.role.clone(),
            database: names.database.clone(),
            application_name: names.application_name.clone(),
            state: match activity {
                Activity::Active => "active",
                Activity::InFailedTransaction => "idle in transaction (aborted)",
                Activity::InTransaction => "idle in transaction",
                Activity::Idle => "idle",
            },
            began: now.checked_sub(age).map(rfc3339).unwrap_or_default(),
            age_seconds: age.as_secs(),
            backend_pid: *backend_pid,
            bytes_to_server: traffic.to_server(),
            bytes_to_client: traffic.to_client(),
        }
    }
}

impl SessionStart {
    fn of(recent: &Recent) -> Option<Self> {
        let waited = recent.waited.as_ref()?;
        let [p50_seconds, p95_seconds] = [waited.p50, waited.p95].map(|wait| wait.as_secs_f64());
        Some(Self { p50_seconds, p95_seconds, of: waited.of })
    }
}

impl TargetStatus {
    fn of(
        target: &TargetTelemetry,
        standing: Standing,
        now: SystemTime,
        identities: &mut Vec<TokenStatus>,
    ) -> Self {
        let identity = target.token().map(|token| {
            let token = TokenStatus::of(token, now);
            identities.iter().position(|known| *known == token).unwrap_or_else(|| {
                identities.push(token);
                identities.len() - 1
            })
        });
        let counts = &target.counts;
        let (bytes_to_server, bytes_to_client) = counts.bytes();
        let open = counts.sessions_open.get();
        let recent = counts.history.recent(now);
        let connector = target.connector();
        let role_names = target.token().map(|token| token.role_names).unwrap_or_default();
        let access = target.access();
        let connect_with = |listener| {
            let target = connector.as_ref().map(|connector| connector.target());
            ConnectWith::new(listener, target, role_names.first().map(String::as_str), &access)
        };
        let super::PoolStats { ready, hits, misses, reused, .. } = target.supply().get();
        Self {
            name: target.name().to_owned(),
            server: target.connector().map(|connector| server(connector.target())),
            servers: target.servers().into_iter().map(TargetServer::of).collect(),
            state: standing.state.as_str(),
            cause: standing.cause,
            last_sign_in: standing.last.map(SignIn::of),
            listening: target.listening(),
            ready: target.readiness(now).is_ok(),
            sessions: Sessions {
                open,
                limit: target.limit(),
                total: counts.sessions.get(),
                signing_in: (counts.connections_open.get() - open).max(0),
            },
            session_start: SessionStart::of(&recent),
            recent: Steps {
                sessions_per_minute: recent.per_minute,
                step_seconds: STEP,
                sessions: recent.sessions,
                refusals: recent.refusals,
            },
            connect_with: target.listening().into_iter().map(connect_with).collect(),
            supply: PoolStats { ready, hits, misses, reused },
            bytes_to_server,
            bytes_to_client,
            refusals: counts.refusals(),
            refusal_messages: counts.refusal_messages(),
            identity,
        }
    }
}

impl TargetServer {
    fn of(ShownServer { host, role, is_selected }: ShownServer) -> Self {
        Self { host, role: role.as_str(), selected: is_selected }
    }
}

/// The servers of a target, with its role and database.
fn server(target: &pgentra_connect::Target) -> String {
    let servers: Vec<_> = target.endpoints().iter().map(ToString::to_string).collect();
    let mut text = servers.join(", ");
    for (what, named) in [("role", target.named_user()), ("database", target.named_database())] {
        if let Some(named) = named {
            text.push_str(&format!(", {what} {named}"));
        }
    }
    text
}

impl SignIn {
    fn of(outcome: SignInOutcome) -> Self {
        let SignInOutcome { time, failure } = outcome;
        Self {
            time: rfc3339(time),
            ok: failure.is_none(),
            failing_since: failure.as_ref().map(|failure| rfc3339(failure.since)),
            failures: failure.as_ref().map_or(0, |failure| failure.times),
            sqlstate: failure.as_ref().map(|failure| failure.sqlstate.clone()),
            cause: failure.as_ref().map(|failure| failure.cause),
            message: failure.map(|failure| failure.message),
        }
    }
}

impl TokenStatus {
    fn of(token: pgentra_connect::TokenState, now: SystemTime) -> Self {
        let seconds =
            |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default().as_secs();
        let identity = token.identity.as_ref();
        let id = |id: Option<&str>| id.map(str::to_owned);
        Self {
            role_names: token.role_names,
            source: token.source,
            asked_for: token.asked_for,
            tenant: id(identity.and_then(|identity| identity.tenant())),
            object_id: id(identity.and_then(|identity| identity.object_id())),
            client_id: id(identity.and_then(|identity| identity.client_id())),
            obtained: token.obtained_on.map(rfc3339),
            expires: token.expires_on.map(rfc3339),
            life_seconds: token.obtained_on.zip(token.expires_on).map(|(from, to)| seconds(from, to)),
            left_seconds: token.expires_on.map(|expires_on| seconds(now, expires_on)),
            succeeded: token.succeeded,
            failed: token.failed,
            last_error: token.last_error.map(|error| error.to_string()),
        }
    }
}
