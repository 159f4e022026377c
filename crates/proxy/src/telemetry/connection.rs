//! The record of one client, from its connection to its end.

use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgentra_wire::fields::Fields;
use pgentra_wire::startup::StartupMessage;
use tokio::time::Instant;

use pgentra_observe::AuditLog;

use super::audit::{AuditLine, Event};
use super::ended::Ended;
use super::live::LiveSession;
use super::names::{Names, SignIn};
use super::problems::RefusedClient;
use super::process::Process;
use super::target::{TargetTelemetry, shortened};
use pgentra_session::traffic::Traffic;

/// Longest name in bytes that is kept from a client: PostgreSQL's own names have 63 bytes.
const NAME_LIMIT: usize = 256;

/// The record of a client that has no session yet.
pub(crate) struct ConnectionRecord {
    open: OpenGuard,
    client: String,
    began: Instant,
    names: Names,
}

impl ConnectionRecord {
    /// `is_only` tells whether the client can be led to this target alone.
    pub(crate) fn begin(target: &Arc<TargetTelemetry>, is_only: bool, client: impl Display) -> Self {
        Self {
            open: OpenGuard::new(target, is_only),
            client: client.to_string(),
            began: Instant::now(),
            names: Names::default(),
        }
    }

    /// Records which target the client is led to: until then it is shown as one of the first target
    /// of its listener.
    pub(crate) fn is_led_to(&mut self, target: &Arc<TargetTelemetry>) {
        self.open.is_led_to(target);
    }

    /// Records the client's start-up.
    pub(crate) fn asks(&mut self, start: &StartupMessage) {
        self.names.client_role = Some(name(start.user()));
        self.names.database = Some(name(start.database()));
        self.names.application_name = start.get("application_name").map(name);
    }

    /// Records the start-up that the server gets.
    pub(crate) fn asks_for(&mut self, start: &StartupMessage) {
        self.names.role = Some(name(start.user()));
        self.names.database = Some(name(start.database()));
        self.names.application_name = start.get("application_name").map(name);
    }

    /// Records an error that the client gets instead of a session.
    pub(crate) fn refused(&self, fields: &Fields) {
        let target = &self.open.target;
        let sqlstate = fields.sqlstate().into_owned();
        let message = shortened(&fields.message());
        target.counts.refused(&sqlstate, &message);
        let Some(process) = target.process() else { return };
        target.counts.history.refused(process.now());
        let problem = RefusedClient {
            time: process.now(),
            target: target.name().to_owned(),
            client: self.client.clone(),
            sqlstate: sqlstate.clone(),
            message: message.clone(),
            detail: fields.detail().map(|detail| shortened(&detail)),
            hint: fields.hint().map(|hint| shortened(&hint)),
            role: self.names.role.clone().or_else(|| self.names.client_role.clone()),
            database: self.names.database.clone(),
            application_name: self.names.application_name.clone(),
        };
        process.problems.add(problem);
        if let Some(audit) = process.audit() {
            audit.write(&AuditLine {
                sqlstate: Some(&sqlstate),
                message: Some(&message),
                ..self.line(process, Event::Refused)
            });
        }
    }

    /// Records that the client has its session. The identity of the token is kept only if there is
    /// an audit log.
    pub(crate) fn signed_in(self, sign_in: SignIn) -> ObservedSession {
        let waited = self.began.elapsed();
        let audited = self.open.audit().map(|(process, audit)| {
            let session = process.sessions.fetch_add(1, Ordering::Relaxed) + 1;
            let line = AuditLine { session: Some(session), ..self.line(process, Event::Start) };
            audit.write(&line.signed_in(&sign_in));
            session
        });
        let Self { open, client, names, .. } = self;
        let target = &open.target;
        if let Some(process) = target.process() {
            target.counts.history.began(process.now(), waited);
        }
        let (number, live) = target.counts.began(waited, client, names, sign_in.backend_pid);
        let audited = audited.map(|session| Box::new((session, sign_in)));
        ObservedSession { open, number, live, ended: Ended::Cut, audited }
    }

    fn line<'a>(&'a self, process: &Process, event: Event) -> AuditLine<'a> {
        AuditLine::new(
            (process.now(), process.instance),
            event,
            self.open.target.name(),
            &self.client,
            &self.names,
        )
    }
}

/// Counts a connection as open until it is dropped. The connection counts as one of the target that
/// it is led to, or of the first one, if it ends before that.
struct OpenGuard {
    target: Arc<TargetTelemetry>,
    is_counted: bool,
}

impl OpenGuard {
    fn new(target: &Arc<TargetTelemetry>, is_only: bool) -> Self {
        target.counts.connections_open.inc();
        let mut open = Self { target: Arc::clone(target), is_counted: false };
        if is_only {
            open.count();
        }
        open
    }

    fn is_led_to(&mut self, target: &Arc<TargetTelemetry>) {
        target.counts.connections_open.inc();
        self.target.counts.connections_open.dec();
        self.target = Arc::clone(target);
        self.count();
    }

    fn count(&mut self) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.target.counts.connections.inc();
        }
    }

    fn audit(&self) -> Option<(&Process, &AuditLog)> {
        let process = self.target.process()?;
        Some((process, process.audit()?))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.count();
        self.target.counts.connections_open.dec();
    }
}

/// The record of a session. If dropped without an end, the session counts as cut.
pub(crate) struct ObservedSession {
    open: OpenGuard,
    number: u64,
    live: Arc<LiveSession>,
    ended: Ended,
    /// What the last line of a session in the audit log repeats of its first: its number there, and
    /// its sign-in.
    audited: Option<Box<(u64, SignIn)>>,
}

/// The counters for the bytes of a session.
pub(crate) struct SessionTraffic(Arc<LiveSession>);

impl Deref for SessionTraffic {
    type Target = Traffic;

    fn deref(&self) -> &Traffic {
        &self.0.traffic
    }
}

impl ObservedSession {
    /// The counters for the session's bytes.
    pub(crate) fn traffic(&self) -> SessionTraffic {
        SessionTraffic(Arc::clone(&self.live))
    }

    pub(crate) fn ended(mut self, how: Ended) {
        self.ended = how;
    }
}

impl Drop for ObservedSession {
    fn drop(&mut self) {
        let target = &self.open.target;
        target.counts.ended(self.number, self.ended);
        let Some((audited, (process, audit))) = self.audited.as_deref().zip(self.open.audit()) else {
            return;
        };
        let (session, sign_in) = audited;
        let LiveSession { traffic, names, client, began, .. } = &*self.live;
        let line = AuditLine {
            session: Some(*session),
            bytes_to_server: Some(traffic.to_server()),
            bytes_to_client: Some(traffic.to_client()),
            seconds: Some(rounded(began.elapsed())),
            ended_by: Some(self.ended.as_str()),
            ..AuditLine::new((process.now(), process.instance), Event::End, target.name(), client, names)
        };
        audit.write(&line.signed_in(sign_in));
    }
}

/// Seconds, rounded to the millisecond.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(NAME_LIMIT)]).into_owned()
}
