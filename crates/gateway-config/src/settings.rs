//! The settings with their defaults. What each means is in [`GATEWAY_KEYS`](crate::GATEWAY_KEYS),
//! under the same name.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pgentra_gateway::{AskMethod, Flavour, SERVICE_ROLE, SessionAttrs, Unmapped, WarmSessions};
use pgentra_settings::{ListenAddr, TelemetrySettings};
use pgentra_verify::Cloud;
use uuid::Uuid;

/// The settings of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayProcessSettings {
    /// Where clients connect. Default: port 5432 of the loopback interface.
    pub listen: Vec<ListenAddr>,
    /// The certificate chain for clients (PEM).
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Whether clients of this machine may send their tokens without TLS. Default: no.
    pub danger_accept_plaintext: bool,
    /// Time for TLS, the start-up packet, the token and the sign-in at the server. Default: a minute.
    pub start_up_timeout: Duration,
    /// Time for the first packet. Default: 10 seconds.
    pub first_packet_timeout: Duration,
    /// Time that sessions have to end by themselves. Default: 5 seconds.
    pub drain_timeout: Duration,
    /// Probes, metrics, log and audit log.
    pub telemetry: TelemetrySettings,
}

/// The settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its name in metrics and audit lines; default: its address.
    pub name: Option<String>,
    /// The databases whose clients are led here; empty: all.
    pub databases: Vec<String>,
    /// The host names (SNI) of clients that are led here; empty: all.
    pub host_names: Vec<String>,
    /// Its address.
    pub upstream: Option<String>,
    /// Which of several servers in `upstream` takes a client.
    pub target_session_attrs: SessionAttrs,
    /// How the gateway signs in. Default: `peer` over a Unix socket, `cert` over TLS.
    pub method: Option<SignInMethod>,
    /// The authorities of the server's certificate (PEM).
    pub upstream_ca: Option<PathBuf>,
    /// The authority that signs the gateway's certificates.
    pub authority: Option<PathBuf>,
    /// The password of the gateway and of mapped roles.
    pub password_file: Option<PathBuf>,
    /// The gateway's own role.
    pub service_role: String,
    /// The mapping in the database; `None`: in `mapping`.
    pub flavour: Option<Flavour>,
    /// The file that maps roles to principals.
    pub mapping: Option<PathBuf>,
    /// What becomes of clients whose role is not mapped.
    pub unmapped: Unmapped,
    /// How clients are asked for a token that do not say it themselves.
    pub auth: AskMethod,
    /// What may follow the last `@` of a user name, as on Single Server.
    pub server_name: String,
    /// The tenants whose tokens are accepted.
    pub tenant: Vec<Uuid>,
    /// The cloud that issuer, audience and keys are derived from.
    pub cloud: Cloud,
    /// The audiences; empty: the cloud's PostgreSQL resource.
    pub audience: Vec<String>,
    /// The issuers; empty: those of the tenant.
    pub issuer: Vec<String>,
    /// Where the keys of the issuer are; default: derived from the tenant.
    pub keys_url: Option<String>,
    /// The authorities (PEM) that may vouch for the host of `keys_url` beside those of the system.
    pub keys_ca: Option<PathBuf>,
    /// What happens when a token expires: off, warn or end.
    pub expiry: Expiry,
    /// How long before the expiry the client gets its notice. Default: 5 minutes.
    pub expiry_notice: Duration,
    /// Whether Microsoft Graph is asked for the groups that a token does not list. Default: no.
    pub group_overage: GroupOverage,
    /// When Microsoft Graph is asked whether a principal's account is enabled. Default: never.
    pub account_check: AccountLookup,
    /// How often during a session. Default: 5 minutes.
    pub account_check_interval: Duration,
    /// What becomes of logins while Graph cannot be asked for the account. Default: refused.
    pub graph_down: GraphDown,
    /// Sessions at the same time. Default: 100.
    pub max_connections: usize,
    /// Sessions that are signed in before a client asks for them. Default: none.
    pub warm: WarmSessions,
}

/// What becomes of a principal that is in more groups than its token lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupOverage {
    /// It is in no group.
    #[default]
    Refuse,
    /// Microsoft Graph is asked.
    Graph,
}

/// When Microsoft Graph is asked whether an account is enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountLookup {
    /// Never.
    #[default]
    Off,
    /// At each login.
    Login,
    /// At each login, and now and then during a session.
    Session,
}

/// What becomes of logins while Microsoft Graph cannot be asked for an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphDown {
    /// They are refused.
    #[default]
    Refuse,
    /// They go on.
    Allow,
}

/// How the gateway signs in at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInMethod {
    /// By the user that it runs as.
    Peer,
    /// By certificates that it signs.
    Cert,
    /// By a password that the mapped roles share.
    Scram,
}

/// What happens to a session when its token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing.
    #[default]
    Off,
    /// The client gets a notice.
    Warn,
    /// The client gets a notice, and the session ends.
    End,
}

impl Default for GatewayProcessSettings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tls_cert: None,
            tls_key: None,
            danger_accept_plaintext: false,
            start_up_timeout: Duration::from_secs(60),
            first_packet_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            name: None,
            databases: Vec::new(),
            host_names: Vec::new(),
            upstream: None,
            target_session_attrs: SessionAttrs::Any,
            method: None,
            upstream_ca: None,
            authority: None,
            password_file: None,
            service_role: SERVICE_ROLE.to_owned(),
            flavour: Some(Flavour::Flexible),
            mapping: None,
            unmapped: Unmapped::Refuse,
            auth: AskMethod::Password,
            server_name: String::new(),
            tenant: Vec::new(),
            cloud: Cloud::Public,
            audience: Vec::new(),
            issuer: Vec::new(),
            keys_url: None,
            keys_ca: None,
            expiry: Expiry::Off,
            expiry_notice: Duration::from_secs(300),
            group_overage: GroupOverage::Refuse,
            account_check: AccountLookup::Off,
            account_check_interval: Duration::from_secs(300),
            graph_down: GraphDown::Refuse,
            max_connections: 100,
            warm: WarmSessions::default(),
        }
    }
}

impl FromStr for SignInMethod {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "peer" => Ok(Self::Peer),
            "cert" => Ok(Self::Cert),
            "scram" => Ok(Self::Scram),
            _ => Err("it is peer, cert or scram"),
        }
    }
}

impl FromStr for GroupOverage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "graph" => Ok(Self::Graph),
            _ => Err("it is refuse or graph"),
        }
    }
}

impl FromStr for AccountLookup {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "login" => Ok(Self::Login),
            "session" => Ok(Self::Session),
            _ => Err("it is off, login or session"),
        }
    }
}

impl FromStr for GraphDown {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "allow" => Ok(Self::Allow),
            _ => Err("it is refuse or allow"),
        }
    }
}

impl FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warn),
            "end" => Ok(Self::End),
            _ => Err("it is off, warn or end"),
        }
    }
}
