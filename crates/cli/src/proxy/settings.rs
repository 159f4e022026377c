//! The settings with their defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pgentra_proxy::Drain;
use pgentra_proxy::{SERVER_LIFETIME, WARM_MAX_AGE};

use super::listen_addr::ListenAddr;
use crate::options::Identity;

/// The settings of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) drain_timeout: Duration,
    pub(crate) drain: Drain,
    pub(crate) danger_listen_beyond_loopback: bool,
    pub(crate) seen: Seen,
}

/// Telemetry settings. Read once, at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) health_listen: Option<SocketAddr>,
    pub(crate) log_format: LogFormat,
    pub(crate) audit: Option<AuditPlace>,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// Where audit lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuditPlace {
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// The settings of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its label in metrics, audit lines and the status page; default: host and database.
    pub(crate) name: Option<String>,
    /// Its own listeners; empty: it shares the process-wide ones.
    pub(crate) listen: Vec<ListenAddr>,
    pub(crate) pin: bool,
    pub(crate) max_connections: usize,
    pub(crate) start_up_timeout: Duration,
    pub(crate) first_packet_timeout: Duration,
    pub(crate) client_auth: ClientAuthSettings,
    pub(crate) warm: usize,
    pub(crate) warm_max_age: Duration,
    pub(crate) reuse: bool,
    pub(crate) server_lifetime: Duration,
    pub(crate) server_check_delay: Duration,
    pub(crate) connect_rate: u32,
    pub(crate) identity: Identity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientAuthSettings {
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    pub(crate) tls_client_name: ClientName,
    /// Pairs of a certificate's name and a role that it may use.
    pub(crate) tls_client_map: Vec<(String, String)>,
    pub(crate) auth_file: Option<PathBuf>,
    /// Users by number or by name.
    pub(crate) uids: Vec<String>,
    /// Pairs of a client's role and a database role.
    pub(crate) role_map: Vec<(String, String)>,
}

/// The name in a client's certificate that must match the role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientName {
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

impl Default for Process {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(5),
            drain: Drain::default(),
            danger_listen_beyond_loopback: false,
            seen: Seen::default(),
        }
    }
}

impl Default for Target {
    fn default() -> Self {
        Self {
            name: None,
            listen: Vec::new(),
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
            connect_rate: 0,
            identity: Identity::default(),
        }
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("write text or json"),
        }
    }
}

impl From<&str> for AuditPlace {
    fn from(text: &str) -> Self {
        match text {
            "-" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }
}

impl fmt::Display for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
