use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use futures_util::future::join_all;
use pgentra_connect::{ConnectError, Connector, Timings, TokenState};

use pgentra_wire::fields::Fields;

use super::connect_with::ClientAccess;
use super::counts::{Cancelled, Counts, PoolCounters};
use super::outcome::{Last, SignInOutcome, is_the_targets};
use super::process::Process;
use crate::servers::{ServerWatch, ShownServer};

/// The telemetry of one target. Made by [`Telemetry::target`](super::Telemetry::target); a default one is not shown anywhere.
#[derive(Debug, Default)]
pub struct TargetTelemetry {
    name: String,
    process: Option<Arc<Process>>,
    pub(super) counts: Counts,
    connector: Mutex<Option<Connector>>,
    servers: Mutex<Option<Weak<ServerWatch>>>,
    last: Last,
    limit: AtomicUsize,
    access: Mutex<ClientAccess>,
    listening: Mutex<Vec<String>>,
    pools: Mutex<Vec<Weak<dyn PoolControl>>>,
}

/// A pool, as far as telemetry needs it.
pub(crate) trait PoolControl: fmt::Debug + Send + Sync {
    /// Ends the pooled sessions of this database, or all of them, and pools none until a client
    /// asks for one. Returns their number after the server has ended them.
    fn close<'a>(&'a self, database: Option<&'a str>) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>>;
}

impl TargetTelemetry {
    /// The target's name in metrics and audit lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn new(name: &str, process: Arc<Process>) -> Self {
        Self { name: name.to_owned(), process: Some(process), ..Self::default() }
    }

    /// Sets the connector that opens its sessions, what is known of its servers, the limit of sessions, and how clients get
    /// them.
    pub(crate) fn served_by(
        &self,
        (connector, servers): (&Connector, Option<Weak<ServerWatch>>),
        limit: usize,
        access: ClientAccess,
    ) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
        *self.connector.lock().unwrap_or_else(PoisonError::into_inner) = Some(connector.clone());
        self.limit.store(limit, Ordering::Relaxed);
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// Shows a listener as up until the returned value is dropped.
    pub(crate) fn listens_on(self: &Arc<Self>, address: String) -> Listening {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).push(address.clone());
        Listening { target: Arc::clone(self), address }
    }

    /// Registers the pool, for as long as it exists.
    pub(crate) fn kept_by(&self, pool: Weak<dyn PoolControl>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&pool));
        pools.push(pool);
    }

    /// Ends the pooled sessions of this database, or all of them: see [`PoolControl::close`].
    pub(crate) async fn close_kept(&self, database: Option<&str>) -> usize {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pools: Vec<_> = pools.iter().filter_map(Weak::upgrade).collect();
        join_all(pools.iter().map(|pool| pool.close(database))).await.into_iter().sum()
    }

    /// Records that a server session was opened.
    pub(crate) fn opened(&self, timings: Timings) {
        self.counts.opened(timings);
        if let Some(process) = &self.process {
            self.last.succeeded(process.now());
        }
    }

    /// Records that a server session could not be opened; `told` is the error that a client gets.
    pub(crate) fn failed(&self, error: &ConnectError, told: &Fields) {
        self.counts.failed(error.kind());
        let connector = self.connector();
        let is_ours = connector.is_none_or(|connector| is_the_targets(error.kind(), connector.target()));
        if let Some(process) = self.process.as_ref().filter(|_| is_ours) {
            let detail = told.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            let message = shortened(&format!("{}{detail}", told.message()));
            self.last.failed(process.now(), error.kind(), (&told.sqlstate(), message));
        }
    }

    /// The result of the last sign-in that shows the state of the target.
    pub(super) fn last(&self) -> Option<SignInOutcome> {
        self.last.get()
    }

    /// Records a client's cancel request.
    pub(crate) fn cancelled(&self, how: Cancelled) {
        self.counts.cancelled(how);
    }

    pub(crate) fn supply(&self) -> &PoolCounters {
        &self.counts.supply
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.process.as_deref()
    }

    pub(super) fn connector(&self) -> Option<Connector> {
        self.connector.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its servers, if they are asked what they are.
    pub(super) fn servers(&self) -> Vec<ShownServer> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        servers.and_then(|servers| servers.upgrade()).map(|servers| servers.servers()).unwrap_or_default()
    }

    pub(super) fn token(&self) -> Option<TokenState> {
        self.connector().map(|connector| connector.token_state())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn access(&self) -> ClientAccess {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn listening(&self) -> Vec<String> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the target has a listener and a token.
    pub(super) fn readiness(&self, now: SystemTime) -> Result<(), Lack> {
        let lack = |is_pending, what, error: Option<String>| {
            Err(Lack { is_pending, what, name: self.name.clone(), error })
        };
        if self.listening().is_empty() {
            return lack(false, "no listener is up", None);
        }
        match self.token() {
            Some(token) if token.expires_on.is_some_and(|expires_on| now < expires_on) => Ok(()),
            Some(TokenState { last_error: Some(error), .. }) => {
                lack(false, "no token", Some(error.to_string()))
            }
            _ => lack(true, "no token yet", None),
        }
    }
}

/// What a target lacks, in words.
#[derive(Debug)]
pub(super) struct Lack {
    /// A token was requested, and there is no answer yet.
    pub(super) is_pending: bool,
    what: &'static str,
    name: String,
    error: Option<String>,
}

impl Lack {
    /// The reason without the name of the target.
    pub(super) fn cause(&self) -> String {
        let Self { what, error, .. } = self;
        error.as_ref().map_or_else(|| (*what).to_owned(), |error| format!("{what}: {error}"))
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, name, error, .. } = self;
        write!(f, "{what} for {name}")?;
        error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

/// Longest client message that is kept, in characters.
const MESSAGE_LIMIT: usize = 1000;

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}

/// A listener that is up.
pub(crate) struct Listening {
    target: Arc<TargetTelemetry>,
    address: String,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listening = self.target.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = listening.iter().position(|address| *address == self.address) {
            listening.remove(at);
        }
    }
}
