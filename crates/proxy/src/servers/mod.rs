//! Asks the servers of a target what they are, so that new sessions go to the right one.
//!
//! Every server is asked in an interval whether it is a standby, over one session with each. Their role and database are
//! those of a client that was signed in; before the first client nothing is asked.

mod known;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pgentra_connect::{ConnectError, ConnectErrorKind, Connector, Refusal, SessionAttrs, SignedIn};
use pgentra_wire::WireError;
use pgentra_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits::SessionLimit;
use known::KnownServers;
pub(crate) use known::ServerRole;

/// The shortest time between two questions to a server, however many clients find it wrong.
const GAP: Duration = Duration::from_millis(100);
/// The longest that an answer is waited for before the server counts as unreachable. It takes less than a millisecond.
const ANSWER: Duration = Duration::from_secs(2);
/// With no client for this time, the servers are not asked any more; the next client begins it again.
const FORGET: Duration = Duration::from_secs(30 * 60);
/// The name of the sessions that ask, in `pg_stat_activity`.
const APPLICATION_NAME: &str = "pgentra proxy: server role";

/// What the servers of a target are. The tasks that ask them end when this is dropped.
pub(crate) struct ServerWatch {
    /// Takes a server of every kind.
    connector: Connector,
    interval: Duration,
    state: Mutex<WatchState>,
    /// Changes when the servers are to be asked at once.
    wake: watch::Sender<()>,
    /// Clients that have a session.
    clients: SessionLimit,
}

struct WatchState {
    known: KnownServers,
    /// The start-up for the question. `None`: no client was signed in yet, or its role is refused.
    start: Option<StartupMessage>,
    /// When a client last asked for a session.
    used: Instant,
    has_tasks: bool,
}

/// A server as telemetry shows it.
pub(crate) struct ShownServer {
    /// Its name and port.
    pub(crate) host: String,
    pub(crate) role: ServerRole,
    /// Whether new sessions go to it.
    pub(crate) is_selected: bool,
}

/// The servers of a target for clients that want those of one kind.
#[derive(Clone)]
pub(crate) struct ServerView {
    watch: Arc<ServerWatch>,
    number: usize,
}

impl ServerWatch {
    /// The number of the view for clients that want what the target names.
    const OF_TARGET: usize = 0;
    /// The number of the view for clients that prefer a standby.
    const READING: usize = 1;

    /// The servers for clients that want what the target names. `None`: all suit, because there is one and it may be of any
    /// kind; or the interval is zero, and each sign-in finds out for itself.
    pub(crate) fn view(
        connector: &Connector,
        interval: Duration,
        clients: SessionLimit,
    ) -> Option<ServerView> {
        let target = connector.target();
        let (number, wanted) = (target.endpoints().len(), target.session_attrs());
        if interval.is_zero() || (number == 1 && wanted == SessionAttrs::Any) {
            return None;
        }
        let known = KnownServers::new(number, &[wanted, SessionAttrs::PreferStandby]);
        let watch = Arc::new(Self {
            connector: connector.with_session_attrs(SessionAttrs::Any),
            interval,
            state: Mutex::new(WatchState { known, start: None, used: Instant::now(), has_tasks: false }),
            wake: watch::Sender::new(()),
            clients,
        });
        Some(ServerView { watch, number: Self::OF_TARGET })
    }

    fn lock(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an answer is waited for.
    fn patience(&self) -> Duration {
        ANSWER.min(self.interval / 2).max(GAP)
    }

    /// The start-up for the question, while clients use the target.
    fn question(&self) -> Option<StartupMessage> {
        let mut state = self.lock();
        if state.used.elapsed() > FORGET && self.clients.taken() == 0 {
            state.known.forget();
            return None;
        }
        state.start.clone()
    }

    fn learn(&self, server: usize, role: ServerRole) {
        let before = self.lock().known.learn(server, role);
        if before != role
            && let Some(endpoint) = self.connector.target().endpoints().get(server)
        {
            match role {
                ServerRole::Is(state) => tracing::info!(server = %endpoint, "the server is {state}"),
                ServerRole::Unreachable => tracing::warn!(server = %endpoint, "the server cannot be reached"),
                ServerRole::Unknown => {
                    tracing::info!(server = %endpoint, "the server does not tell what it is")
                }
            }
        }
    }

    /// Asks a server, over `session` if there is one. Returns the session for the next question.
    async fn ask(&self, server: usize, session: Option<SignedIn>) -> Option<SignedIn> {
        let Some(start) = self.question() else {
            if let Some(session) = session {
                session.terminate().await;
            }
            return None;
        };
        if let Some(mut session) = session {
            if let Ok(Ok(state)) = timeout(self.patience(), session.ask_state()).await {
                self.learn(server, ServerRole::Is(state));
                return Some(session);
            }
            self.learn(server, ServerRole::Unreachable);
        }
        match self.open(server, &start).await {
            Ok((session, role)) => {
                self.learn(server, role);
                session
            }
            Err(error) => {
                tracing::debug!(%error, "a server could not be asked what it is");
                self.failed(server, &error);
                None
            }
        }
    }

    /// Opens a session that asks. Its server counts as unreachable while that takes longer than an answer.
    async fn open(
        &self,
        server: usize,
        start: &StartupMessage,
    ) -> Result<(Option<SignedIn>, ServerRole), ConnectError> {
        let order = [server];
        let mut opening = Box::pin(self.connector.open_among(start, &order));
        let mut session = match timeout(self.patience(), &mut opening).await {
            Ok(opened) => opened?,
            Err(_) => {
                if self.connector.token_state().last_error.is_none() {
                    self.learn(server, ServerRole::Unreachable);
                }
                opening.await?
            }
        };
        let state = match session.state() {
            Some(state) => Some(state),
            // It does not report its state: it is older than PostgreSQL 14.
            None => timeout(self.patience(), session.ask_state()).await.ok().and_then(Result::ok),
        };
        Ok(match state {
            Some(state) => (Some(session), ServerRole::Is(state)),
            None => (None, ServerRole::Unknown),
        })
    }

    /// Stores what the failure of a sign-in shows.
    fn failed(&self, server: usize, error: &ConnectError) {
        match error.kind() {
            // Nothing was sent to the server.
            ConnectErrorKind::Token | ConnectErrorKind::Config => {}
            ConnectErrorKind::Refused(Refusal::TooManyConnections) => {}
            ConnectErrorKind::Refused(refusal) if refusal != Refusal::NotReady => {
                self.learn(server, ServerRole::Unknown);
                // The next client that is signed in names a role that is not refused.
                self.lock().start = None;
            }
            _ => self.learn(server, ServerRole::Unreachable),
        }
    }

    /// Each server, what it is, and whether new sessions go to it.
    pub(crate) fn servers(&self) -> Vec<ShownServer> {
        let state = self.lock();
        let endpoints = self.connector.target().endpoints().iter().zip(state.known.roles()).enumerate();
        let shown = endpoints.map(|(server, (endpoint, role))| ShownServer {
            host: endpoint.to_string(),
            role: *role,
            is_selected: state.known.is_selected(Self::OF_TARGET, server),
        });
        shown.collect()
    }

    /// Has the servers asked by one task each.
    fn begin(self: &Arc<Self>) {
        if !std::mem::replace(&mut self.lock().has_tasks, true) {
            for server in 0..self.connector.target().endpoints().len() {
                tokio::spawn(keep_asking(Arc::downgrade(self), server, self.wake.subscribe()));
            }
        }
    }
}

/// Asks a server until the watch is dropped.
async fn keep_asking(watch: Weak<ServerWatch>, server: usize, mut woken: watch::Receiver<()>) {
    let mut session = None;
    loop {
        woken.mark_unchanged();
        let Some(watch) = watch.upgrade() else { break };
        session = watch.ask(server, session).await;
        let interval = watch.interval.saturating_sub(GAP);
        drop(watch);
        sleep(GAP).await;
        // An error says that the watch was dropped.
        let _ = timeout(interval, woken.changed()).await;
    }
    if let Some(session) = session {
        session.terminate().await;
    }
}

impl ServerView {
    /// The same servers for clients that prefer a standby.
    pub(crate) fn reading(&self) -> Self {
        Self { watch: Arc::clone(&self.watch), number: ServerWatch::READING }
    }

    /// The servers in the order in which they are tried for a new session.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order = self.watch.connector.host_order();
        let mut state = self.watch.lock();
        let has_paused = state.used.elapsed() > FORGET;
        state.used = Instant::now();
        state.known.arrange(self.number, &mut order);
        drop(state);
        if has_paused {
            self.ask_at_once();
        }
        order
    }

    /// Stores what the sign-in of a client shows. Returns the token that is cancelled when the server has become a wrong
    /// one.
    pub(crate) fn opened(
        &self,
        signed_in: &SignedIn,
        start: &StartupMessage,
        order: &[usize],
    ) -> Option<CancellationToken> {
        let server = signed_in.host()?;
        if let Some(state) = signed_in.state() {
            self.watch.learn(server, ServerRole::Is(state));
        }
        let mut state = self.watch.lock();
        let is_new = state.start.is_none() && start.get("replication").is_none();
        if is_new {
            state.start = question_start(start).ok();
        }
        let token = state.known.session(self.number, server);
        drop(state);
        if is_new {
            self.watch.begin();
        }
        if is_new || order.first() != Some(&server) {
            self.ask_at_once();
        }
        token
    }

    /// Has the servers asked now: a session has failed or ended.
    pub(crate) fn ask_at_once(&self) {
        self.watch.wake.send_replace(());
    }

    /// For telemetry, which does not keep the servers from being forgotten.
    pub(crate) fn shown(&self) -> Weak<ServerWatch> {
        Arc::downgrade(&self.watch)
    }
}

/// A start-up with the role and database of a client's.
fn question_start(start: &StartupMessage) -> Result<StartupMessage, WireError> {
    StartupMessage::new(ProtocolVersion::V3_0, start.user())?
        .with("database", start.database())?
        .with("application_name", APPLICATION_NAME)
}
