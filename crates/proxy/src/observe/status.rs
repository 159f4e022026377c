//! What the status page shows.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::audit::rfc3339;
use super::{Observer, TargetObserver};

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
    targets: Vec<Target>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Target {
    name: String,
    listening: Vec<String>,
    ready: bool,
    sessions: Sessions,
    supply: Supply,
    bytes_to_server: u64,
    bytes_to_client: u64,
    refusals: BTreeMap<String, u64>,
    token: Option<Token>,
}

#[derive(Debug, Serialize)]
struct Sessions {
    open: i64,
    limit: usize,
    total: u64,
    signing_in: i64,
}

/// All zero where no sessions are kept for clients.
#[derive(Debug, Serialize)]
struct Supply {
    ready: u64,
    hits: u64,
    misses: u64,
    reused: u64,
}

#[derive(Debug, Serialize)]
struct Token {
    source: Option<String>,
    asked_for: String,
    tenant: Option<String>,
    object_id: Option<String>,
    client_id: Option<String>,
    obtained: Option<String>,
    expires: Option<String>,
    /// From when it was obtained to its end.
    life_seconds: Option<u64>,
    left_seconds: Option<u64>,
    succeeded: u64,
    failed: u64,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Problem {
    time: String,
    target: String,
    client: String,
    sqlstate: String,
    message: String,
}

impl Observer {
    pub(crate) fn status(&self) -> Status {
        let now = self.now();
        let reason = self.readiness().err();
        let problem = |problem: super::problems::Problem| Problem {
            time: rfc3339(problem.time),
            target: problem.target,
            client: problem.client,
            sqlstate: problem.sqlstate,
            message: problem.message,
        };
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
            started: rfc3339(self.0.began),
            uptime_seconds: now.duration_since(self.0.began).unwrap_or_default().as_secs(),
            targets: self.targets().iter().map(|target| Target::of(target, now)).collect(),
            problems: self.0.problems.newest().into_iter().map(problem).collect(),
        }
    }
}

impl Target {
    fn of(target: &TargetObserver, now: SystemTime) -> Self {
        let counts = &target.counts;
        let (bytes_to_server, bytes_to_client) = counts.bytes();
        let open = counts.sessions_open.get();
        let super::Supply { ready, hits, misses, reused, .. } = target.supply().get();
        Self {
            name: target.name().to_owned(),
            listening: target.listening(),
            ready: target.readiness(now).is_ok(),
            sessions: Sessions {
                open,
                limit: target.limit(),
                total: counts.sessions.get(),
                signing_in: (counts.connections_open.get() - open).max(0),
            },
            supply: Supply { ready, hits, misses, reused },
            bytes_to_server,
            bytes_to_client,
            refusals: counts.refusals(),
            token: target.token().map(|token| Token::of(token, now)),
        }
    }
}

impl Token {
    fn of(token: pgentra_connect::TokenState, now: SystemTime) -> Self {
        let seconds =
            |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default().as_secs();
        let identity = token.identity.as_ref();
        let id = |id: Option<&str>| id.map(str::to_owned);
        Self {
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
