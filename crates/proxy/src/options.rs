//! The options of an auth proxy.

use std::sync::Arc;
use std::time::Duration;

use pgentra_session::Limits;

use crate::auth::ClientAuth;
use crate::drain::Drain;
use crate::shared_state::SharedState;
use crate::telemetry::TargetTelemetry;

/// The default of [`Options::warm_max_age`]: 3 minutes.
pub const WARM_MAX_AGE: Duration = Duration::from_secs(180);

/// The default of [`Options::server_lifetime`]: one hour.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The default of [`Options::server_role_interval`]: 2 seconds.
pub const SERVER_ROLE_INTERVAL: Duration = Duration::from_secs(2);

/// What becomes of clients' sessions with a server that is no longer one of the kind that the target
/// wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DemotedSessions {
    /// They go on.
    #[default]
    Keep,
    /// They end with SQLSTATE 57P01 between two messages. A client in the middle of an answer has
    /// [`Limits::drain`] to get the rest; after it, it is cut off.
    Close,
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
    /// What clients must prove before the server is dialled; [`AuthProxy::set_client_auth`](crate::AuthProxy::set_client_auth)
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
    /// How often each server is asked whether it is a standby, if the target has several or wants
    /// one kind of them ([`Target::session_attrs`](pgentra_connect::Target::session_attrs)): with one
    /// session for each server, from the first client on. New sessions go to a server that suits, and
    /// pooled ones with another are ended. Where a sign-in or a session shows that something has
    /// changed, the servers are asked at once. Zero: they are not asked, and each sign-in finds out for
    /// itself. Default [`SERVER_ROLE_INTERVAL`], 2 seconds.
    pub server_role_interval: Duration,
    /// What becomes of clients' sessions with a server that does not suit any more.
    pub demoted_sessions: DemotedSessions,
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
            server_role_interval: SERVER_ROLE_INTERVAL,
            demoted_sessions: DemotedSessions::default(),
            connect_rate: 0,
        }
    }
}
