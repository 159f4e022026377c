//! The client side: any program connects without a password, and is signed in with a token.
//!
//! The client's own start-up goes to the server, over verified TLS and with a fresh token; what follows is relayed byte by
//! byte. Who may connect is decided before anything is dialled: by where the listener is (on the loopback interface, or a
//! Unix socket of the same user), and by what its [`ClientAuth`] asks for (TLS, a certificate, a password).

mod drain;
pub mod http;
mod session_limit;
pub mod telemetry;

pub use self::drain::Drain;
mod auth;
mod check;
mod handle;
mod login;
mod pool;
mod rate;
mod recycle;
mod refill;
mod refusal;
mod serve;
mod startup;
mod upstream;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgentra_connect::Connector;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

pub use auth::{CertificateName, CertificateRule, ClientAuth, ClientAuthError, RoleMap, Tls, Users};
pub use handle::{ProxyHandle, SharedState};
pub use refill::PoolStats;
pub use serve::ShutdownTokens;

use pool::Pool;
use rate::Rate;
use refill::RefillTasks;
use upstream::Upstream;

use crate::telemetry::TargetTelemetry;

use pgentra_session::{Limits, UnixSocket};

/// The default of [`Options::warm_max_age`].
pub const WARM_MAX_AGE: Duration = Duration::from_secs(180);

/// The default of [`Options::server_lifetime`].
pub const SERVER_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Where clients come in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP address. Whoever reaches it is let in, unless the [`ClientAuth`] asks for more: without that, bind it to the loopback
    /// interface.
    Tcp(TcpListener),
    /// A Unix socket. Clients of another user are refused.
    Unix(UnixSocket),
}

/// What a role and a database that the target names mean for clients. One that it does not name is the client's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// A client that names another one is refused, SQLSTATE 28000. A client that names no database gets the target's.
    #[default]
    Same,
    /// They take the place of whatever the client names.
    Pinned,
}

/// What an injector does beyond signing clients in. The default suits a small server.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a role and a database that the target names mean for clients.
    pub naming: Naming,
    /// How much it takes on. [`Limits::start_up`] is the time that a client has for TLS, its start-up packet and its password;
    /// what follows is bounded by the credential's and the target's own limits, so that their failures are told and not cut off.
    pub limits: Limits,
    /// What a session is given when serving ends.
    pub drain: Drain,
    /// What it has in common with the injector whose place it takes.
    pub shared: SharedState,
    /// Who is told what happens. By default nobody.
    pub telemetry: Arc<TargetTelemetry>,
    /// What is asked of clients before anything is dialled; [`AuthProxy::set_client_auth`] replaces it.
    pub client_auth: ClientAuth,
    /// Server sessions that stand ready, signed in and never used, for each start-up (role, database and every other
    /// parameter) that a client was signed in with; at most 32 start-ups, each for half an hour after it was asked for
    /// last. A client that asks for exactly this start-up is handed one of them, once. They count as sessions of
    /// [`Limits::connections`], and give up their place to a client that needs it. Default 0: none.
    pub warm: usize,
    /// How long a session may wait for a client. Default [`WARM_MAX_AGE`], 3 minutes: Azure's gateways and firewalls forget
    /// a connection after four without traffic, and not all of them count keep-alives. A server that ends idle sessions
    /// earlier (`idle_session_timeout`) is noticed, and its limit kept.
    pub warm_max_age: Duration,
    /// Whether a session that a client left in good order, outside of a transaction, is cleaned with `DISCARD ALL` and
    /// given to the next client with exactly the same start-up, while the token lives that it was opened with. A session
    /// with a temporary schema is ended. Default false: what an extension keeps in the server process outlives
    /// `DISCARD ALL`.
    pub reuse: bool,
    /// How long after it was opened a session is kept, for clients to come or for the next client; however often it was
    /// used. It bounds what the check of a kept session cannot see, such as a password. Default [`SERVER_LIFETIME`], an hour.
    pub server_lifetime: Duration,
    /// A kept session goes to a client only if a session that would be opened now would be as it is: the role and the
    /// database are the same, may sign in and be signed in to, and have the same settings and memberships. This is asked
    /// of the server again where it was asked longer ago than this. Default zero: each time.
    pub server_check_delay: Duration,
    /// New connections to the server in a second; that many may begin at once, a further client waits for its turn, and
    /// one that would wait for more than 5 seconds is refused with SQLSTATE 57P03. Default 0: no limit.
    pub connect_rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            naming: Naming::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            shared: SharedState::default(),
            telemetry: Arc::default(),
            client_auth: ClientAuth::default(),
            warm: 0,
            warm_max_age: WARM_MAX_AGE,
            reuse: false,
            server_lifetime: SERVER_LIFETIME,
            server_check_delay: Duration::ZERO,
            connect_rate: 0,
        }
    }
}

/// Signs clients in to one target. Nothing is connected before the first client.
pub struct AuthProxy {
    connector: Connector,
    naming: Naming,
    limits: Limits,
    drain: Drain,
    shared: SharedState,
    client_auth: RwLock<Arc<ClientAuth>>,
    /// Connections to the server that are being opened for clients.
    opening: Semaphore,
    telemetry: Arc<TargetTelemetry>,
    rate: Rate,
    warm: usize,
    reuse: bool,
    server_lifetime: Duration,
    server_check_delay: Duration,
    stock: Pool<Upstream>,
    keepers: RefillTasks,
    /// There is something to do for the task that looks after the stock.
    changed: Notify,
}

impl AuthProxy {
    /// An injector whose sessions `connector` opens.
    pub fn new(connector: Connector, options: Options) -> Self {
        let Options {
            naming,
            limits,
            drain,
            shared,
            telemetry,
            client_auth,
            warm,
            warm_max_age,
            reuse,
            server_lifetime,
            server_check_delay,
            connect_rate,
        } = options;
        Self {
            connector,
            naming,
            drain,
            shared,
            client_auth: RwLock::new(Arc::new(client_auth)),
            opening: Semaphore::new(limits.starting.clamp(1, Semaphore::MAX_PERMITS)),
            limits,
            rate: Rate::new(connect_rate),
            warm,
            reuse,
            server_lifetime,
            server_check_delay,
            stock: Pool::new(warm_max_age, telemetry.supply().ready.clone()),
            keepers: RefillTasks::default(),
            changed: Notify::new(),
            telemetry,
        }
    }

    /// Asks this of the clients that come from now on, such as when a certificate or the file of users was replaced.
    /// Sessions stay, and whoever is signing in is asked what it was asked.
    pub fn set_client_auth(&self, client_auth: ClientAuth) {
        *self.client_auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client_auth);
    }

    fn client_auth(&self) -> Arc<ClientAuth> {
        Arc::clone(&self.client_auth.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for AuthProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector")
            .field("connector", &self.connector)
            .field("naming", &self.naming)
            .field("limits", &self.limits)
            .field("door", &self.client_auth())
            .field("warm", &self.warm)
            .field("reuse", &self.reuse)
            .finish_non_exhaustive()
    }
}
