//! The settings with their defaults. What each means is in [`KEYS`](crate::KEYS), under the same name.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pgentra_identity::IdentityOptions;
use pgentra_proxy::{DemotedSessions, Drain, SERVER_LIFETIME, SERVER_ROLE_INTERVAL, WARM_MAX_AGE};
use pgentra_session::Route;
use pgentra_settings::{ListenAddr, TelemetrySettings};

use crate::listener_kind::ListenerKind;

/// The settings of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Time that sessions have to end by themselves. Default: 5 seconds.
    pub drain_timeout: Duration,
    /// What a session may still do in the drain.
    pub drain: Drain,
    /// Whether listeners beyond the loopback interface may serve clients that do not authenticate. Default: no.
    pub danger_listen_beyond_loopback: bool,
    /// Probes, metrics, status page, log and audit log.
    pub telemetry: TelemetrySettings,
}

/// The settings of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// Its label in metrics, audit lines and the status page; default: host and database.
    pub name: Option<String>,
    /// Its own listeners; empty: it shares the process-wide ones.
    pub listen: Vec<ListenAddr>,
    /// Listeners for clients that prefer a standby. Default: none.
    pub listen_read: Vec<ListenAddr>,
    /// Listeners for clients whose sessions are not pooled. Default: none.
    pub listen_direct: Vec<ListenAddr>,
    /// Which clients are led here, of those of a listener. Default: all.
    pub route: Route,
    /// Whether the role and database of the target replace those that clients name.
    pub pin: bool,
    /// Sessions at the same time. Default: 100.
    pub max_connections: usize,
    /// Time for TLS, the start-up packet and the password. Default: a minute.
    pub start_up_timeout: Duration,
    /// Time for the first packet. Default: 10 seconds.
    pub first_packet_timeout: Duration,
    /// What clients must prove.
    pub client_auth: ClientAuthSettings,
    /// Unused sessions that are kept signed in. Default: 0.
    pub warm: usize,
    /// How long a session waits in the pool. Default: [`WARM_MAX_AGE`].
    pub warm_max_age: Duration,
    /// Whether the pool reuses sessions. Default: no.
    pub reuse: bool,
    /// How long after its opening a session may be pooled. Default: [`SERVER_LIFETIME`].
    pub server_lifetime: Duration,
    /// The largest age of the check of a pooled session. Default: zero.
    pub server_check_delay: Duration,
    /// How often each server is asked what it is. Default: [`SERVER_ROLE_INTERVAL`].
    pub server_role_interval: Duration,
    /// What becomes of sessions with a server that no longer suits. Default: they go on.
    pub demoted_sessions: DemotedSessions,
    /// New connections to the server per second; 0, the default: no limit.
    pub connect_rate: u32,
    /// Whose tokens sign clients in.
    pub identity: IdentityOptions,
}

/// The settings of client authentication; the files are read when the configuration is gathered, and again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAuthSettings {
    /// The certificate chain for clients (PEM).
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// The authorities of clients' certificates (PEM).
    pub tls_client_ca: Option<PathBuf>,
    /// The name in a certificate that must match the role.
    pub tls_client_name: ClientName,
    /// Pairs of a certificate's name and a role that it may use.
    pub tls_client_map: Vec<(String, String)>,
    /// Roles and their SCRAM-SHA-256 verifiers, in the form of PgBouncer's userlist.txt.
    pub auth_file: Option<PathBuf>,
    /// Users by number or by name.
    pub uids: Vec<String>,
    /// Pairs of a client's role and a database role.
    pub role_map: Vec<(String, String)>,
}

impl TargetSettings {
    /// The listen addresses of this kind.
    pub fn places(&self, kind: ListenerKind) -> &[ListenAddr] {
        match kind {
            ListenerKind::Main => &self.listen,
            ListenerKind::Read => &self.listen_read,
            ListenerKind::Direct => &self.listen_direct,
        }
    }

    /// The listen addresses of every kind.
    pub(crate) fn all_places(&self) -> impl Iterator<Item = &ListenAddr> {
        ListenerKind::ALL.into_iter().flat_map(|kind| self.places(kind))
    }

    /// The same settings with the listeners and the route of `other`.
    pub(crate) fn placed_as(&self, other: &Self) -> Self {
        Self {
            listen: other.listen.clone(),
            listen_read: other.listen_read.clone(),
            listen_direct: other.listen_direct.clone(),
            route: other.route.clone(),
            ..self.clone()
        }
    }
}

/// The name in a client's certificate that must match the role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientName {
    /// No name: each certificate of the authority may use every role.
    #[default]
    Any,
    /// The common name.
    Cn,
    /// The distinguished name.
    Dn,
}

impl FromStr for ClientName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "cn" => Ok(Self::Cn),
            "dn" => Ok(Self::Dn),
            _ => Err("it is any, cn or dn"),
        }
    }
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(5),
            drain: Drain::default(),
            danger_listen_beyond_loopback: false,
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            name: None,
            listen: Vec::new(),
            listen_read: Vec::new(),
            listen_direct: Vec::new(),
            route: Route::default(),
            pin: false,
            max_connections: 100,
            start_up_timeout: Duration::from_secs(60),
            first_packet_timeout: Duration::from_secs(10),
            client_auth: ClientAuthSettings::default(),
            warm: 0,
            warm_max_age: WARM_MAX_AGE,
            reuse: false,
            server_lifetime: SERVER_LIFETIME,
            server_check_delay: Duration::ZERO,
            server_role_interval: SERVER_ROLE_INTERVAL,
            demoted_sessions: DemotedSessions::default(),
            connect_rate: 0,
            identity: IdentityOptions::default(),
        }
    }
}
