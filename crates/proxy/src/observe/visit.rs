//! One client, from its connection to its end.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgentra_connect::TokenIdentity;
use pgentra_wire::fields::Fields;
use pgentra_wire::startup::StartupMessage;
use tokio::time::Instant;

use super::audit::{Event, Line};
use super::problems::Problem;
use super::{Observer, TargetObserver};
use crate::session::traffic::Traffic;

/// What a client names is kept up to this length: PostgreSQL's own names have 63 bytes.
const NAME_LIMIT: usize = 256;

/// What a client is told is kept up to this number of characters.
const MESSAGE_LIMIT: usize = 1000;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client hung up, or its connection broke.
    Client,
    /// The server ended it, or its connection broke.
    Server,
    /// The proxy ended it, because it is shutting down.
    Cut,
}

impl Ended {
    pub(super) const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Cut];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Cut => "cut",
        }
    }
}

/// A client that has no session yet.
pub(crate) struct Visit {
    target: Arc<TargetObserver>,
    client: String,
    began: Instant,
    names: Names,
}

/// Who came, as whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) client_role: Option<String>,
    pub(super) role: Option<String>,
    pub(super) database: Option<String>,
    pub(super) application_name: Option<String>,
}

/// What a session is signed in with.
#[derive(Debug, Default)]
pub(crate) struct SignIn {
    /// Whose token it is.
    pub(crate) identity: Option<TokenIdentity>,
    /// The server's process.
    pub(crate) backend_pid: Option<u32>,
}

impl Visit {
    pub(crate) fn begin(target: &Arc<TargetObserver>, client: impl Display) -> Self {
        target.counts.connections.inc();
        target.counts.connections_open.inc();
        Self {
            target: Arc::clone(target),
            client: client.to_string(),
            began: Instant::now(),
            names: Names::default(),
        }
    }

    /// The client said who it is.
    pub(crate) fn asks(&mut self, start: &StartupMessage) {
        self.names.client_role = Some(name(start.user()));
        self.names.application_name = start.get("application_name").map(name);
    }

    /// What the server is asked for.
    pub(crate) fn asks_for(&mut self, start: &StartupMessage) {
        self.names.role = Some(name(start.user()));
        self.names.database = Some(name(start.database()));
        self.names.application_name = start.get("application_name").map(name);
    }

    /// The client is told why it gets no session.
    pub(crate) fn refused(&self, fields: &Fields) {
        let sqlstate = fields.sqlstate().into_owned();
        self.target.counts.refused(&sqlstate);
        let Some(process) = self.target.process() else { return };
        let message: String = fields.message().chars().take(MESSAGE_LIMIT).collect();
        let problem = Problem {
            time: process.now(),
            target: self.target.name().to_owned(),
            client: self.client.clone(),
            sqlstate: sqlstate.clone(),
            message: message.clone(),
        };
        process.0.problems.add(problem);
        if let Some(audit) = process.audit() {
            audit.write(&Line {
                sqlstate: Some(&sqlstate),
                message: Some(&message),
                ..self.line(process, Event::Refused)
            });
        }
    }

    /// The client has its session.
    pub(crate) fn signed_in(&self, sign_in: SignIn) -> ObservedSession {
        let (number, traffic) = self.target.counts.began(self.began.elapsed());
        let mut kept = None;
        if let Some((process, audit)) = self.target.process().and_then(|it| Some((it, it.audit()?))) {
            let session = process.0.sessions.fetch_add(1, Ordering::Relaxed) + 1;
            let line = Line { session: Some(session), ..self.line(process, Event::Start) };
            audit.write(&line.signed_in(&sign_in));
            kept = Some(Box::new((session, self.client.clone(), self.names.clone(), sign_in)));
        }
        ObservedSession {
            target: Arc::clone(&self.target),
            number,
            traffic,
            began: Instant::now(),
            ended: Ended::Cut,
            kept,
        }
    }

    fn line<'a>(&'a self, process: &Observer, event: Event) -> Line<'a> {
        Line::new(process.now(), event, self.target.name(), &self.client, &self.names)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.target.counts.connections_open.dec();
    }
}

/// A session. Dropped without another word, it was cut.
pub(crate) struct ObservedSession {
    target: Arc<TargetObserver>,
    number: u64,
    traffic: Arc<Traffic>,
    began: Instant,
    ended: Ended,
    /// What its last line repeats, where there is one: the session's number, the client, names, sign-in.
    kept: Option<Box<(u64, String, Names, SignIn)>>,
}

impl ObservedSession {
    /// Where its bytes are counted.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    pub(crate) fn ended(mut self, how: Ended) {
        self.ended = how;
    }
}

impl Drop for ObservedSession {
    fn drop(&mut self) {
        self.target.counts.ended(self.number, self.ended);
        let Some((session, client, names, sign_in)) = self.kept.as_deref() else { return };
        let Some((process, audit)) = self.target.process().and_then(|it| Some((it, it.audit()?))) else {
            return;
        };
        let line = Line {
            session: Some(*session),
            bytes_to_server: Some(self.traffic.to_server()),
            bytes_to_client: Some(self.traffic.to_client()),
            seconds: Some(rounded(self.began.elapsed())),
            ended_by: Some(self.ended.as_str()),
            ..Line::new(process.now(), Event::End, self.target.name(), client, names)
        };
        audit.write(&line.signed_in(sign_in));
    }
}

/// To the millisecond.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(NAME_LIMIT)]).into_owned()
}
