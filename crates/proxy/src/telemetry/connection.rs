//! The record of one client, from its connection to its end.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgentra_wire::fields::Fields;
use pgentra_wire::startup::StartupMessage;
use tokio::time::Instant;

use super::audit::{AuditLog, Event, Line};
use super::ended::Ended;
use super::names::{Names, SignIn};
use super::problems::Problem;
use super::process::Process;
use super::target::{TargetTelemetry, shortened};
use pgentra_session::traffic::Traffic;

/// Longest name in bytes that is kept from a client: PostgreSQL's own names have 63 bytes.
const NAME_LIMIT: usize = 256;

/// The record of a client that has no session yet.
pub(crate) struct ConnectionRecord {
    open: Open,
    client: String,
    began: Instant,
    names: Names,
}

impl ConnectionRecord {
    pub(crate) fn begin(target: &Arc<TargetTelemetry>, client: impl Display) -> Self {
        target.counts.connections.inc();
        Self {
            open: Open::new(target),
            client: client.to_string(),
            began: Instant::now(),
            names: Names::default(),
        }
    }

    /// Records the client's start-up.
    pub(crate) fn asks(&mut self, start: &StartupMessage) {
        self.names.client_role = Some(name(start.user()));
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
        let target = &self.open.0;
        let sqlstate = fields.sqlstate().into_owned();
        let message = shortened(&fields.message());
        target.counts.refused(&sqlstate, &message);
        let Some(process) = target.process() else { return };
        let problem = Problem {
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
            audit.write(&Line {
                sqlstate: Some(&sqlstate),
                message: Some(&message),
                ..self.line(process, Event::Refused)
            });
        }
    }

    /// Records that the client has its session. Its properties are kept only if there is an audit
    /// log.
    pub(crate) fn signed_in(self, sign_in: SignIn) -> ObservedSession {
        let (number, traffic) = self.open.0.counts.began(self.began.elapsed());
        let session = self.open.audit().map(|(process, audit)| {
            let session = process.sessions.fetch_add(1, Ordering::Relaxed) + 1;
            let line = Line { session: Some(session), ..self.line(process, Event::Start) };
            audit.write(&line.signed_in(&sign_in));
            session
        });
        let Self { open, client, names, .. } = self;
        let kept = session.map(|session| Box::new(Kept { session, client, names, sign_in }));
        ObservedSession { open, number, traffic, began: Instant::now(), ended: Ended::Cut, kept }
    }

    fn line<'a>(&'a self, process: &Process, event: Event) -> Line<'a> {
        Line::new((process.now(), process.instance), event, self.open.0.name(), &self.client, &self.names)
    }
}

/// Counts a connection as open until it is dropped.
struct Open(Arc<TargetTelemetry>);

impl Open {
    fn new(target: &Arc<TargetTelemetry>) -> Self {
        target.counts.connections_open.inc();
        Self(Arc::clone(target))
    }

    fn audit(&self) -> Option<(&Process, &AuditLog)> {
        let process = self.0.process()?;
        Some((process, process.audit()?))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.connections_open.dec();
    }
}

/// The record of a session. If dropped without an end, the session counts as cut.
pub(crate) struct ObservedSession {
    open: Open,
    number: u64,
    traffic: Arc<Traffic>,
    began: Instant,
    ended: Ended,
    kept: Option<Box<Kept>>,
}

/// What the last line of a session repeats of its first.
struct Kept {
    session: u64,
    client: String,
    names: Names,
    sign_in: SignIn,
}

impl ObservedSession {
    /// The counters for the session's bytes.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    pub(crate) fn ended(mut self, how: Ended) {
        self.ended = how;
    }
}

impl Drop for ObservedSession {
    fn drop(&mut self) {
        let target = &self.open.0;
        target.counts.ended(self.number, self.ended);
        let Some((kept, (process, audit))) = self.kept.as_deref().zip(self.open.audit()) else { return };
        let Kept { session, client, names, sign_in } = kept;
        let line = Line {
            session: Some(*session),
            bytes_to_server: Some(self.traffic.to_server()),
            bytes_to_client: Some(self.traffic.to_client()),
            seconds: Some(rounded(self.began.elapsed())),
            ended_by: Some(self.ended.as_str()),
            ..Line::new((process.now(), process.instance), Event::End, target.name(), client, names)
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
