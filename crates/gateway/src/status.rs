//! The content of the status page.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pgentra_observe::rfc3339;
use pgentra_verify::{Principal, SubjectKind};
use serde::Serialize;

use crate::live::OpenSession;
use crate::login_log::{LoginDecision, LoginRecord};
use crate::telemetry::{GatewayTelemetry, ServedServer, of};
use crate::{Gateway, RoleSource, UpstreamMethod};

/// The number of sessions that are shown; the rest are counted.
const SESSIONS: usize = 100;
/// The number of logins that are shown.
const LOGINS: usize = 50;

/// The document of `/status.json`. Times are RFC 3339 in UTC.
#[derive(Debug, Serialize)]
pub(crate) struct GatewayStatus {
    version: &'static str,
    /// `ready`, or why not.
    state: &'static str,
    reason: Option<String>,
    now: String,
    started: String,
    uptime_seconds: u64,
    /// Failing ones first.
    servers: Vec<ServedServerStatus>,
    /// Open sessions, the oldest first.
    sessions: Vec<OpenSessionStatus>,
    /// The number of other open sessions.
    sessions_not_shown: usize,
    /// The last logins, newest first.
    logins: Vec<LoginStatus>,
}

#[derive(Debug, Serialize)]
struct ServedServerStatus {
    name: String,
    /// `serving` or `failing`.
    state: &'static str,
    cause: Option<String>,
    /// The addresses of the servers, in the order in which they are asked.
    upstream: Vec<String>,
    target_session_attrs: Option<&'static str>,
    /// How the gateway signs in there.
    method: &'static str,
    /// The version of PostgreSQL, once it is known.
    server_version: Option<String>,
    sessions: SessionNumbers,
    logins: LoginNumbers,
    keys: Vec<KeysStatus>,
    mapping: MappingStatus,
}

#[derive(Debug, Serialize)]
struct SessionNumbers {
    open: i64,
    limit: usize,
    total: u64,
    /// Those that wait for a client.
    ready: i64,
}

#[derive(Debug, Serialize)]
struct LoginNumbers {
    let_in: u64,
    /// By the check that failed.
    refused: BTreeMap<String, u64>,
    /// Clients that hung up.
    left: u64,
}

/// The signing keys of an issuer.
#[derive(Debug, Serialize)]
struct KeysStatus {
    issuer: String,
    /// 0: they were not fetched yet.
    keys: usize,
    fetched: Option<String>,
    age_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct MappingStatus {
    /// `flexible`, `single` or `file`.
    source: String,
    /// The number of mapped roles, once it is known.
    roles: Option<usize>,
    /// When it was read, the last time that it could be.
    read: Option<String>,
    age_seconds: Option<u64>,
}

/// An open session.
#[derive(Debug, Serialize)]
struct OpenSessionStatus {
    server: String,
    client: String,
    role: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    /// `user`, `app`, or `password` for a session without a token.
    kind: &'static str,
    object_id: Option<String>,
    username: Option<String>,
    token_expires: Option<String>,
    began: String,
    age_seconds: u64,
    backend_pid: u32,
}

/// A login that was decided.
#[derive(Debug, Serialize)]
struct LoginStatus {
    time: String,
    server: String,
    client: String,
    role: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    object_id: Option<String>,
    /// `let in`, `refused`, or `left` by the client.
    outcome: &'static str,
    /// The check at which it ended.
    check: Option<String>,
    sqlstate: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
}

fn seconds(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).unwrap_or_default().as_secs()
}

impl GatewayTelemetry {
    pub(crate) fn status(&self) -> GatewayStatus {
        let now = self.now();
        let reason = self.ready().err();
        let served = self.servers().clone();
        let mut servers: Vec<_> =
            served.into_iter().map(|(name, served)| self.server(name, &served, now)).collect();
        servers.sort_by_key(|server| server.state != "failing");
        let (sessions, sessions_not_shown) = self.live().first(SESSIONS);
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION"),
            state: match &reason {
                None => "ready",
                Some(reason) if reason.starts_with("draining") => "draining",
                Some(reason) if reason.starts_with("starting") => "starting",
                Some(_) => "not ready",
            },
            reason,
            now: rfc3339(now),
            started: rfc3339(self.began()),
            uptime_seconds: seconds(self.began(), now),
            servers,
            sessions: sessions.iter().map(|session| OpenSessionStatus::of(session, now)).collect(),
            sessions_not_shown,
            logins: self.logins().last(LOGINS).into_iter().map(LoginStatus::of).collect(),
        }
    }

    fn server(&self, name: String, served: &ServedServer, now: SystemTime) -> ServedServerStatus {
        let gateway = served.gateway.upgrade();
        let config = gateway.as_ref().map(|gateway| &gateway.config);
        let counts = self.counts();
        let logins = self.logins().counts_of(&name);
        let (server_version, roles) = served.checked.clone().unzip();
        ServedServerStatus {
            state: if served.lacks().is_some() { "failing" } else { "serving" },
            cause: served.lacks().map(str::to_owned),
            upstream: config.map_or_else(Vec::new, |config| {
                std::iter::once(&config.upstream).chain(&config.further).map(ToString::to_string).collect()
            }),
            target_session_attrs: config
                .filter(|config| !config.further.is_empty())
                .map(|config| config.target_session_attrs.as_str()),
            method: config.map_or("", |config| match config.method {
                UpstreamMethod::Peer => "peer",
                UpstreamMethod::Certificate(_) => "cert",
                UpstreamMethod::Password | UpstreamMethod::SharedPassword => "scram",
            }),
            server_version,
            sessions: SessionNumbers {
                open: counts.sessions_open.get_or_create(&of(&name)).get(),
                limit: config.map_or(0, |config| config.limits.connections),
                total: counts.sessions.get_or_create(&of(&name)).get(),
                ready: counts.sessions_ready.get_or_create(&of(&name)).get(),
            },
            logins: LoginNumbers {
                let_in: logins.let_in,
                refused: logins
                    .refused
                    .into_iter()
                    .map(|(check, number)| (check.to_string(), number))
                    .collect(),
                left: logins.left,
            },
            keys: gateway.as_deref().map(|gateway| keys(gateway, now)).unwrap_or_default(),
            mapping: MappingStatus {
                source: config.map_or_else(String::new, |config| match &config.roles {
                    RoleSource::Database(flavour) => flavour.to_string(),
                    RoleSource::Rules(_) => "file".to_owned(),
                }),
                roles: match config.map(|config| &config.roles) {
                    Some(RoleSource::Rules(rules)) => Some(rules.current().roles.len()),
                    _ => roles,
                },
                read: served.mapping_read.map(rfc3339),
                age_seconds: served.mapping_read.map(|read| seconds(read, now)),
            },
            name,
        }
    }
}

fn keys(gateway: &Gateway, now: SystemTime) -> Vec<KeysStatus> {
    let of_verifier = gateway.config.verifiers.iter().flat_map(|verifier| verifier.keys_at_hand());
    of_verifier
        .map(|(policy, at_hand)| KeysStatus {
            issuer: policy.issuers().first().cloned().unwrap_or_default(),
            keys: at_hand.map_or(0, |(number, _)| number),
            fetched: at_hand.map(|(_, fetched)| rfc3339(fetched)),
            age_seconds: at_hand.map(|(_, fetched)| seconds(fetched, now)),
        })
        .collect()
}

impl OpenSessionStatus {
    fn of(session: &OpenSession, now: SystemTime) -> Self {
        let OpenSession { server, client, role, database, application_name, principal, backend_pid, began } =
            session;
        let age = began.elapsed();
        let principal = principal.as_ref();
        Self {
            server: server.clone(),
            client: client.to_string(),
            role: role.clone(),
            database: database.clone(),
            application_name: application_name.clone(),
            kind: match principal.map(Principal::kind) {
                None => "password",
                Some(SubjectKind::App) => "app",
                Some(_) => "user",
            },
            object_id: principal.map(|principal| principal.object_id().to_string()),
            username: principal.and_then(Principal::user_principal_name).map(str::to_owned),
            token_expires: principal.map(|principal| rfc3339(principal.expires_on())),
            began: now.checked_sub(age).map(rfc3339).unwrap_or_default(),
            age_seconds: age.as_secs(),
            backend_pid: *backend_pid,
        }
    }
}

impl LoginStatus {
    fn of(record: LoginRecord) -> Self {
        let (outcome, check, refusal) = match record.decision {
            LoginDecision::LetIn => ("let in", None, None),
            LoginDecision::Refused(refusal) => ("refused", Some(refusal.check), Some(refusal)),
            LoginDecision::Left(check) => ("left", Some(check), None),
        };
        let check = check.map(|check| check.to_string());
        let of_refusal = refusal.map(|it| (it.sqlstate, it.message, it.detail, it.hint));
        let (sqlstate, message, detail, hint) = match of_refusal {
            Some((sqlstate, message, detail, hint)) => (Some(sqlstate), Some(message), detail, hint),
            None => (None, None, None, None),
        };
        Self {
            time: rfc3339(record.at),
            server: record.server,
            client: record.client,
            role: record.role,
            database: record.database,
            application_name: record.application_name,
            object_id: record.object_id.map(|id| id.to_string()),
            outcome,
            check,
            sqlstate,
            message,
            detail,
            hint,
        }
    }
}
