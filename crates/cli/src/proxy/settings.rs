//! What is set, with its defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pgentra_proxy::Drain;
use pgentra_proxy::{SERVER_LIFETIME, WARM_MAX_AGE};

use super::listen_addr::ListenAddr;
use crate::options::Identity;

/// What holds for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) drain_timeout: Duration,
    pub(crate) drain: Drain,
    pub(crate) danger_listen_beyond_loopback: bool,
    pub(crate) seen: Seen,
}

/// Where and how it can be seen what the process does. Read once, when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) health_listen: Option<SocketAddr>,
    pub(crate) log_format: LogFormat,
    pub(crate) audit: Option<AuditPlace>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuditPlace {
    /// To stderr.
    Stderr,
    /// To the end of a file.
    File(PathBuf),
}

/// What holds for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// What metrics, audit lines and the status page call it; none: its host and database.
    pub(crate) name: Option<String>,
    /// Its own listeners; empty: the process-wide ones are shared out.
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

/// Who may come in, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientAuthSettings {
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    pub(crate) tls_client_name: ClientName,
    /// A certificate's name and a role that it opens.
    pub(crate) tls_client_map: Vec<(String, String)>,
    pub(crate) auth_file: Option<PathBuf>,
    /// Users by number or by name.
    pub(crate) uids: Vec<String>,
    /// A client's role and the role of the database that it is.
    pub(crate) role_map: Vec<(String, String)>,
}

/// What of a client's certificate has to fit its role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientName {
    /// Nothing: each of the authority opens every role.
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
