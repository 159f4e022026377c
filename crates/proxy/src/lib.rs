//! The auth proxy: clients connect without a password, and the proxy signs them in with a token.
//!
//! The proxy sends the client's own start-up to the server, over verified TLS and with a fresh
//! token; then it relays byte by byte. Which clients may connect is decided before the server is
//! dialled: by the listener's address (the loopback interface, or a Unix socket of the same user),
//! and by the [`ClientAuth`] (TLS, a certificate, a password).

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

/// The default of [`Options::warm_max_age`]: 3 minutes.
pub const WARM_MAX_AGE: Duration = Duration::from_secs(180);

/// The default of [`Options::server_lifetime`]: one hour.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A listening socket for clients.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP socket. Every client that can reach it may connect, unless the [`ClientAuth`] asks for
    /// authentication: without that, bind it to the loopback interface.
    Tcp(TcpListener),
    /// A Unix socket. Clients of another user are refused, unless [`ClientAuth::uids`] has them.
    Unix(UnixSocket),
}

/// How the role and database of the target apply to clients. A role or database that the target
/// leaves open is the client's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// A client that names another one is refused, SQLSTATE 28000. A client that names no database
    /// gets the target's.
    #[default]
    Same,
    /// They replace the role and database that the client names.
    Pinned,
}

/// Options of an auth proxy. The defaults suit a small server.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the role and database of the target apply to clients.
    pub naming: Naming,
    /// Limits for clients and sessions. [`Limits::start_up`] is the time that a client has for TLS,
    /// its start-up packet and its password. What follows has the limits of the credential and the
    /// target, so that their failures are reported.
    pub limits: Limits,
    /// How long sessions go on when serving ends.
    pub drain: Drain,
    /// State shared with the proxy that this one replaces.
    pub shared: SharedState,
    /// Where metrics and audit lines go. By default nowhere.
    pub telemetry: Arc<TargetTelemetry>,
    /// What clients must prove before the server is dialled; [`AuthProxy::set_client_auth`]
    /// replaces it.
    pub client_auth: ClientAuth,
    /// Unused server sessions that are kept signed in, for each start-up (role, database and all
    /// other parameters) that a client was signed in with. The proxy keeps at most 32 start-ups,
    /// each for half an hour after its last use. A client with exactly the same start-up gets one
    /// of these sessions. They count as sessions of [`Limits::connections`], and are ended if
    /// another client needs their place. Default 0: none.
    pub warm: usize,
    /// The longest that a session stays in the pool. Default [`WARM_MAX_AGE`], 3 minutes: Azure's
    /// gateways and firewalls drop a connection after four minutes without traffic, and not all of
    /// them count keep-alives. If the server ends idle sessions earlier (`idle_session_timeout`),
    /// the proxy adopts that limit.
    pub warm_max_age: Duration,
    /// Whether the pool reuses sessions. A session that a client left outside of a transaction is
    /// cleaned with `DISCARD ALL` and given to the next client with exactly the same start-up,
    /// until the token expires that it was opened with. A session with a temporary schema is ended.
    /// Default false: state that an extension keeps in the server process survives `DISCARD ALL`.
    pub reuse: bool,
    /// How long after its opening a session may be pooled, however often it was used. It bounds
    /// changes that the check of pooled sessions cannot see, such as a new password. Default
    /// [`SERVER_LIFETIME`], an hour.
    pub server_lifetime: Duration,
    /// The largest age of the check of a pooled session. A client gets a pooled session only if a
    /// new one would be the same: role and database exist unchanged, still allow the sign-in, and
    /// have the same settings and memberships. The proxy asks the server again if the last answer
    /// is older than this. Default zero: each time.
    pub server_check_delay: Duration,
    /// New connections to the server per second, which is also the size of a burst. A further
    /// client waits, and one that would wait for more than 5 seconds is refused with SQLSTATE
    /// 57P03. Default 0: no limit.
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

/// The auth proxy of one target. It connects when the first client comes.
pub struct AuthProxy {
    connector: Connector,
    naming: Naming,
    limits: Limits,
    drain: Drain,
    shared: SharedState,
    client_auth: RwLock<Arc<ClientAuth>>,
    /// Limits the connections to the server that are being opened for clients.
    opening: Semaphore,
    telemetry: Arc<TargetTelemetry>,
    rate: Rate,
    warm: usize,
    reuse: bool,
    server_lifetime: Duration,
    server_check_delay: Duration,
    pool: Pool<Upstream>,
    refill_tasks: RefillTasks,
    /// Wakes the refill task.
    changed: Notify,
}

impl AuthProxy {
    /// An auth proxy whose sessions `connector` opens.
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
            pool: Pool::new(warm_max_age, telemetry.supply().ready.clone()),
            refill_tasks: RefillTasks::default(),
            changed: Notify::new(),
            telemetry,
        }
    }

    /// Replaces the client authentication for new clients, for example after a certificate or the
    /// users file was renewed. Existing sessions stay, and a client that is signing in goes on with
    /// the old one.
    pub fn set_client_auth(&self, client_auth: ClientAuth) {
        *self.client_auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client_auth);
    }

    fn client_auth(&self) -> Arc<ClientAuth> {
        Arc::clone(&self.client_auth.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for AuthProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthProxy")
            .field("connector", &self.connector)
            .field("naming", &self.naming)
            .field("limits", &self.limits)
            .field("client_auth", &self.client_auth())
            .field("warm", &self.warm)
            .field("reuse", &self.reuse)
            .finish_non_exhaustive()
    }
}
