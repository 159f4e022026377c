//! The record of one client: what is known of it, and what the audit log and the metrics get.

use std::net::SocketAddr;

use pgentra_observe::rfc3339;
use pgentra_session::login_error::LoginError;
use pgentra_verify::{Principal, SubjectKind};
use pgentra_wire::startup::StartupMessage;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::live::OpenSession;
use crate::observed::{LoginCheck, LoginEvent, LoginOutcome};
use crate::telemetry::{GatewayTelemetry, of, with};

/// Longest name in bytes that is kept from a client: PostgreSQL's own names have 63 bytes.
const NAME_LIMIT: usize = 256;

/// A client, from its connection to its end. Dropped, it counts the connection as closed.
pub(crate) struct ClientRecord {
    telemetry: GatewayTelemetry,
    client: SocketAddr,
    began: Instant,
    /// The name of the server that the client is led to; empty while it is not known.
    pub(crate) server: String,
    role: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    pub(crate) principal: Option<Principal>,
    /// The check that is made now.
    pub(crate) check: LoginCheck,
    session: Option<SessionRecord>,
}

struct SessionRecord {
    number: u64,
    backend_pid: u32,
    began: Instant,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    Client,
    Server,
    ClientBroke,
    ServerBroke,
    Shutdown,
    TokenExpired,
    PrincipalDisabled,
}

#[derive(Serialize)]
struct GatewayAuditLine<'a> {
    time: String,
    event: &'static str,
    instance: Uuid,
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

impl ClientRecord {
    /// A client that has connected.
    pub(crate) fn new(telemetry: &GatewayTelemetry, client: SocketAddr) -> Self {
        telemetry.counts().connections.inc();
        telemetry.counts().connections_open.inc();
        Self {
            telemetry: telemetry.clone(),
            client,
            began: Instant::now(),
            server: String::new(),
            role: None,
            database: None,
            application_name: None,
            principal: None,
            check: LoginCheck::Connection,
            session: None,
        }
    }

    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// The database that the client asks for.
    pub(crate) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The names that the client asks for.
    pub(crate) fn asked(&mut self, start: &StartupMessage) {
        self.role = Some(shortened(start.user()));
        self.database = Some(shortened(start.database()));
        self.application_name = start.get("application_name").map(shortened);
    }

    /// The client got an error, or left before it had a session.
    pub(crate) fn refused(&self, error: &LoginError) {
        let LoginError::Rejected(fields) = error else {
            // A connection without a start-up is no login: something looks whether the port is open.
            if self.role.is_some() {
                self.tell(LoginOutcome::Left { check: self.check });
            }
            return;
        };
        let sqlstate = fields.sqlstate().into_owned();
        self.telemetry.counts().refused.get_or_create(&with(&self.server, "sqlstate", &sqlstate)).inc();
        let line = GatewayAuditLine {
            sqlstate: Some(sqlstate),
            message: Some(fields.message().into_owned()),
            ..self.line("refused")
        };
        self.write(&line);
        self.tell(LoginOutcome::Refused { check: self.check, error: fields });
    }

    /// The client has a session.
    pub(crate) fn signed_in(&mut self, backend_pid: u32) {
        let counts = self.telemetry.counts();
        counts.sessions.get_or_create(&of(&self.server)).inc();
        counts.sessions_open.get_or_create(&of(&self.server)).inc();
        counts.with_session.inc();
        counts.sign_in.get_or_create(&of(&self.server)).observe(self.began.elapsed().as_secs_f64());
        let number = self.telemetry.next_session();
        let began = Instant::now();
        self.session = Some(SessionRecord { number, backend_pid, began });
        self.telemetry.live().begin(number, self.live(backend_pid, began));
        self.write(&self.line("start"));
        self.tell(LoginOutcome::LetIn);
    }

    /// The session has ended.
    pub(crate) fn ended(&mut self, reason: EndReason) {
        let Some(session) = &self.session else { return };
        let seconds = Some(session.began.elapsed().as_secs_f64());
        self.telemetry.counts().ended.get_or_create(&with(&self.server, "reason", reason.as_str())).inc();
        self.write(&GatewayAuditLine { ended_by: Some(reason.as_str()), seconds, ..self.line("end") });
        self.close();
    }

    fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.telemetry.live().end(session.number);
            self.telemetry.counts().sessions_open.get_or_create(&of(&self.server)).dec();
            self.telemetry.counts().with_session.dec();
        }
    }

    fn live(&self, backend_pid: u32, began: Instant) -> OpenSession {
        OpenSession {
            server: self.server.clone(),
            client: self.client,
            role: self.role.clone(),
            database: self.database.clone(),
            application_name: self.application_name.clone(),
            principal: self.principal.clone(),
            backend_pid,
            began,
        }
    }

    fn line(&self, event: &'static str) -> GatewayAuditLine<'_> {
        let principal = self.principal.as_ref();
        GatewayAuditLine {
            time: rfc3339(self.telemetry.now()),
            event,
            instance: self.telemetry.instance(),
            server: &self.server,
            session: self.session.as_ref().map(|session| session.number),
            client: self.client.to_string(),
            role: self.role.as_deref(),
            database: self.database.as_deref(),
            application_name: self.application_name.as_deref(),
            tenant: principal.and_then(Principal::tenant),
            object_id: principal.map(Principal::object_id),
            client_id: principal.and_then(Principal::app_id),
            kind: principal.map(|principal| match principal.kind() {
                SubjectKind::App => "app",
                _ => "user",
            }),
            username: principal.and_then(Principal::user_principal_name),
            token_expires: principal.map(|principal| rfc3339(principal.expires_on())),
            backend_pid: self.session.as_ref().map(|session| session.backend_pid),
            sqlstate: None,
            message: None,
            ended_by: None,
            seconds: None,
        }
    }

    fn tell(&self, outcome: LoginOutcome<'_>) {
        self.telemetry.tell(&LoginEvent {
            server: &self.server,
            client: self.client,
            role: self.role.as_deref(),
            database: self.database.as_deref(),
            application_name: self.application_name.as_deref(),
            principal: self.principal.as_ref(),
            outcome,
        });
    }

    fn write(&self, line: &GatewayAuditLine<'_>) {
        if let Some(audit) = self.telemetry.audit() {
            audit.write(line);
        }
    }
}

impl Drop for ClientRecord {
    fn drop(&mut self) {
        self.ended(EndReason::Shutdown);
        self.telemetry.counts().connections_open.dec();
    }
}

impl EndReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::ClientBroke => "client_broke",
            Self::ServerBroke => "server_broke",
            Self::Shutdown => "shutdown",
            Self::TokenExpired => "token_expired",
            Self::PrincipalDisabled => "principal_disabled",
        }
    }
}

fn shortened(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(NAME_LIMIT)]).into_owned()
}
