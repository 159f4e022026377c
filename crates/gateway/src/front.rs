//! The servers behind a listener: accepts connections until the shutdown, leads each client to its
//! server, and runs every session to its end.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use pgentra_session::cancel::Passed;
use pgentra_session::client::{Client, Opening};
use pgentra_session::listen::{Shutdown, accept};
use pgentra_session::login_error::{self, LoginError, chain};
use pgentra_session::relay::{AsIs, Filter, RelayOutcome, relay};
use pgentra_session::starting::{Seat, Starting};
use pgentra_session::turn_away::turn_away;
use pgentra_session::{Limits, Route};
use pgentra_wire::startup::{CancelRequest, StartupMessage};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{ClientRecord, EndReason};
use crate::expiry::{Noticed, SessionExpiry};
use crate::login::ServerSession;
use crate::rewriter::StatementRewriter;
use crate::telemetry::GatewayTelemetry;
use crate::{ClientTls, Flavour, Gateway, RoleSource, refusal};
use crate::{security_label, setting};

/// Time that PostgreSQL has to end a session whose token has expired or whose principal is disabled.
/// After it the connection is closed.
const TERMINATION: Duration = Duration::from_secs(5);

/// How often it is looked whether signing keys are due for renewal.
const KEY_CHECK: Duration = Duration::from_secs(60);

/// The servers that clients are led to, the first one whose route fits, and TLS for all clients.
pub struct Servers {
    tls: ClientTls,
    acceptor: Option<TlsAcceptor>,
    servers: Vec<(Route, Arc<Gateway>)>,
}

/// The servers behind one or several listeners. They can be replaced while clients are served.
pub struct Front {
    servers: ArcSwap<Servers>,
    limits: Limits,
    telemetry: GatewayTelemetry,
    /// Servers that were replaced and may still have sessions.
    gone: Mutex<Vec<Weak<Gateway>>>,
}

/// What stops a listener.
#[derive(Clone, Debug, Default)]
pub struct GatewayShutdown {
    /// The listener closes; sessions go on.
    pub listening: CancellationToken,
    /// The listener closes and sessions are drained.
    pub serving: CancellationToken,
    /// The drain time is cut short.
    pub waiting: CancellationToken,
}

impl Servers {
    /// The servers in the order in which their routes are compared.
    pub fn new(tls: ClientTls, servers: Vec<(Route, Arc<Gateway>)>) -> Self {
        let acceptor = tls.config().map(|config| pgentra_session::client::acceptor(config));
        Self { tls, acceptor, servers }
    }

    fn find(&self, host_name: Option<&str>, start: &StartupMessage) -> Option<Arc<Gateway>> {
        let fits = |route: &Route| route.fits(host_name, start.database(), start.user());
        self.servers.iter().find(|(route, _)| fits(route)).map(|(_, gateway)| Arc::clone(gateway))
    }
}

impl Front {
    /// Serves nothing before [`Front::serve`]. The limits of connections in start-up and of times
    /// are those of each listener; each server limits its sessions itself.
    pub fn new(servers: Servers, limits: Limits, telemetry: GatewayTelemetry) -> Self {
        Self { servers: ArcSwap::from_pointee(servers), limits, telemetry, gone: Mutex::default() }
    }

    /// Replaces the servers for clients that connect from now on. Sessions go on.
    pub fn replace(&self, servers: Servers) {
        let before = self.servers.swap(Arc::new(servers));
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let is_served = |gateway: &Arc<Gateway>| {
            self.servers.load().servers.iter().any(|(_, served)| Arc::ptr_eq(served, gateway))
        };
        for (_, gateway) in &before.servers {
            if !is_served(gateway) {
                gateway.close_waiting();
            }
            gone.extend(gateway.further.iter().chain([gateway]).map(Arc::downgrade));
        }
        gone.retain(|gateway| gateway.strong_count() > 0);
    }

    /// Renews signing keys before they are so old that a login has to wait for it. It fetches only what
    /// is due.
    async fn keep_keys_fresh(&self) {
        loop {
            sleep(KEY_CHECK).await;
            let servers = self.servers.load_full();
            for (_, gateway) in &servers.servers {
                if let Err(error) = gateway.refresh_keys().await {
                    let error = chain(&error);
                    tracing::warn!(error, "signing keys cannot be renewed; the old ones stay in use");
                }
            }
        }
    }

    /// Serves clients until one of the tokens is cancelled. A client that is still logging in then
    /// gets 57P03; in a drain, sessions get [`Limits::drain`] to end by themselves, then PostgreSQL
    /// ends them with 57P01. Returns when the last session has ended.
    ///
    /// Dropping the future drops the sessions too, without a message.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: GatewayShutdown) {
        let mut stages = Shutdown::until(shutdown.serving.clone());
        stages.hurry = shutdown.waiting;
        let _kill = stages.kill.clone().drop_guard();
        let tasks = TaskTracker::new();
        let starting = Starting::within(&self.limits);
        let closing = shutdown.listening;
        let (front, closed, drained) = (self.clone(), closing.clone(), stages.drain.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = drained.cancelled() => {}
                () = front.keep_keys_fresh() => {}
            }
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing.cancelled() => None,
                accepted = accept(&listener, &starting, &stages.drain) => accepted,
            };
            let Some((stream, address, seat)) = accepted else { break };
            let client = Client::new(stream, address);
            tasks.spawn(self.clone().run(client, seat, stages.clone()));
        }
        drop(listener);
        if stages.drain.is_cancelled() {
            for (_, gateway) in &self.servers.load().servers {
                gateway.close_waiting();
            }
        }
        if !stages.drain.is_cancelled() {
            // The listener is gone, and its sessions go on until the shutdown.
            tasks.close();
            tokio::select! {
                () = tasks.wait() => return,
                () = stages.drain.cancelled() => {}
            }
        }
        stages.wind_up(&tasks, self.limits.drain).await;
    }

    /// Runs one connection from start to end. Both sides are closed on every path.
    async fn run(self: Arc<Self>, mut client: Client, seat: Seat, stages: Shutdown) {
        let mut attempt = ClientRecord::new(&self.telemetry, client.address());
        let login = Box::pin(self.log_in(&mut client, &seat, &mut attempt));
        let Some(login) = stages.during(login, refusal::shutting_down).await else { return };
        let (gateway, session) = match login {
            Ok(Some(ready)) => ready,
            Ok(None) => return client.close().await,
            Err(error) => {
                attempt.refused(&error);
                return Box::pin(turn_away(client, seat, error, &stages)).await;
            }
        };
        drop(seat);
        attempt.signed_in(session.registration.process_id());
        let relayed = gateway.relay(&mut client, session, &attempt, &stages.terminate);
        let reason = tokio::select! {
            () = stages.kill.cancelled() => EndReason::Shutdown,
            reason = relayed => reason,
        };
        tracing::debug!(address = %attempt.client(), reason = reason.as_str(), "a session ended");
        attempt.ended(reason);
    }

    /// Runs the log-in up to ReadyForQuery. `None`: the connection was a cancel request and is
    /// done.
    ///
    /// Not cancel-safe; after a drop, the client can still get an error.
    async fn log_in(
        &self,
        client: &mut Client,
        seat: &Seat,
        attempt: &mut ClientRecord,
    ) -> Result<Option<(Arc<Gateway>, ServerSession)>, LoginError> {
        let login = async {
            let first = self.limits.first_packet_deadline();
            seat.arrive(client, first).await?;
            // Boxed to keep the task of a silent connection small.
            Box::pin(self.open(client, seat, first, attempt)).await
        };
        timeout(self.limits.start_up, login)
            .await
            .unwrap_or_else(|_| Err(login_error::login_timeout().into()))
    }

    async fn open(
        &self,
        client: &mut Client,
        seat: &Seat,
        first: Instant,
        attempt: &mut ClientRecord,
    ) -> Result<Option<(Arc<Gateway>, ServerSession)>, LoginError> {
        let servers = self.servers.load_full();
        let start = match seat.ask(client.open(servers.acceptor.as_ref(), first)).await? {
            Opening::Startup(start) => start,
            Opening::Cancel(request) => {
                seat.admitted();
                self.cancel(&servers, &request).await;
                return Ok(None);
            }
        };
        attempt.asked(&start);
        // PostgreSQL's order: a start-up without a user is refused before anything is looked up.
        if start.user().is_empty() {
            return Err(login_error::no_user().into());
        }
        // A token or password sent in clear text is lost even if the sign-in fails, so the request for it is never sent.
        if !client.is_encrypted() && !servers.tls.admits_without(client) {
            let address = client.address().ip().to_canonical();
            return Err(refusal::no_encryption(address, start.user(), start.database()).into());
        }
        let gateway = self.choose(&servers, client, &start)?;
        attempt.server.clone_from(&gateway.config.name);
        let gateway = seat.ask(client.while_present(gateway.taking())).await?;
        client.negotiate(&start).await?;
        let session = gateway.authenticate(client, seat, start, attempt).await?;
        Ok(Some((gateway, session)))
    }

    fn choose(
        &self,
        servers: &Servers,
        client: &Client,
        start: &StartupMessage,
    ) -> Result<Arc<Gateway>, LoginError> {
        servers.find(client.server_name(), start).ok_or_else(|| refusal::no_server(start.database()).into())
    }

    /// Forwards a cancel request to the server that has its session.
    async fn cancel(&self, servers: &Servers, request: &CancelRequest) {
        let gone: Vec<_> = {
            let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            gone.iter().filter_map(Weak::upgrade).collect()
        };
        let current = servers.servers.iter().map(|(_, gateway)| gateway);
        for gateway in current.chain(&gone).flat_map(|gateway| gateway.members()) {
            let pass = async |request| gateway.config.sessions_at().cancel(&request).await;
            if gateway.cancel.forward_cancel(request, pass).await != Passed::UnknownKey {
                return;
            }
        }
    }
}

impl Gateway {
    /// Serves clients with this server alone: see [`Front::serve`]. One gateway can serve several
    /// listeners, which share limits and cancel keys.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        let (limits, telemetry) = (self.config.limits.clone(), self.config.telemetry.clone());
        let servers = Servers::new(self.config.tls.clone(), vec![(Route::default(), self)]);
        let shutdown = GatewayShutdown { serving: shutdown, ..GatewayShutdown::default() };
        Arc::new(Front::new(servers, limits, telemetry)).serve(listener, shutdown).await;
    }

    async fn relay(
        &self,
        client: &mut Client,
        session: ServerSession,
        attempt: &ClientRecord,
        terminate: &CancellationToken,
    ) -> EndReason {
        let expiry = self.config.expiry;
        let left = attempt.principal.as_ref().filter(|_| expiry != SessionExpiry::Off).map(|principal| {
            principal.expires_on().duration_since((self.config.clock)()).unwrap_or_default()
        });
        let process_id = session.registration.process_id();
        let relayed = async {
            match self.config.roles {
                RoleSource::Database(Flavour::Single) => {
                    let mut rewriter = StatementRewriter::new(setting::rename);
                    self.forward(client, session, left, &mut rewriter).await
                }
                // The mapping is in this database alone.
                RoleSource::Database(Flavour::Flexible) if attempt.database() == Some("postgres") => {
                    let mut rewriter = StatementRewriter::new(security_label::call);
                    self.forward(client, session, left, &mut rewriter).await
                }
                _ => self.forward(client, session, left, &mut AsIs).await,
            }
        };
        // Only PostgreSQL knows where an error may be inserted into a result, so PostgreSQL ends
        // the session.
        let terminated = async {
            terminate.cancelled().await;
            self.terminate(process_id).await;
            std::future::pending().await
        };
        let expired = async {
            match left.and_then(|left| expiry.end_after(left)) {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        };
        let disabled = async {
            match attempt.principal.as_ref().and_then(|principal| self.until_disabled(principal)) {
                Some(disabled) => disabled.await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            let reason = tokio::select! {
                () = expired => EndReason::TokenExpired,
                () = disabled => EndReason::PrincipalDisabled,
            };
            self.terminate(process_id).await;
            reason
        };
        let mut relayed = std::pin::pin!(relayed);
        tokio::select! {
            biased;
            outcome = &mut relayed => reason(attempt, outcome, terminate),
            never = terminated => never,
            reason = ended => {
                let _ = timeout(TERMINATION, relayed).await;
                reason
            }
        }
    }

    async fn forward(
        &self,
        client: &mut Client,
        session: ServerSession,
        left: Option<Duration>,
        filter: &mut impl Filter,
    ) -> RelayOutcome {
        let ServerSession { mut server, first, registration: _registration, _permit } = session;
        let ends = matches!(self.config.expiry, SessionExpiry::End(_));
        match left.and_then(|left| Some((left, self.config.expiry.notice_after(left)?))) {
            Some((left, after)) => {
                let mut client = Noticed::new(client, after, left, ends);
                relay(&mut client, &mut server, first, filter).await
            }
            None => relay(client, &mut server, first, filter).await,
        }
    }

    async fn terminate(&self, process_id: u32) {
        let sql = "SELECT pg_catalog.pg_terminate_backend($1)";
        if let Err(error) = self.control.query(sql, &[(&process_id.cast_signed(), Type::INT4)]).await {
            tracing::warn!(error = chain(&error), "a session could not be terminated");
        }
    }
}

fn reason(attempt: &ClientRecord, outcome: RelayOutcome, terminate: &CancellationToken) -> EndReason {
    let address = attempt.client();
    match outcome {
        RelayOutcome::ClosedByClient => EndReason::Client,
        RelayOutcome::ClosedByServer | RelayOutcome::Drained if terminate.is_cancelled() => {
            EndReason::Shutdown
        }
        RelayOutcome::ClosedByServer | RelayOutcome::Drained => EndReason::Server,
        RelayOutcome::ClientIo(error) => {
            tracing::debug!(%address, %error, "the client's connection broke");
            EndReason::ClientBroke
        }
        RelayOutcome::ServerIo(error) => {
            tracing::debug!(%address, %error, "the server's connection broke");
            EndReason::ServerBroke
        }
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<_> = self.servers.iter().map(|(route, _)| route).collect();
        f.debug_struct("Servers").field("routes", &routes).finish_non_exhaustive()
    }
}
