//! The gateway: Entra token authentication in front of any PostgreSQL.
//!
//! The gateway answers as Azure Database for PostgreSQL does. It asks a role that is mapped to an
//! Entra principal for a token as a cleartext password, or by OAUTHBEARER as PostgreSQL 18 does if
//! the client wants that ([`AUTH_SETTING`]), inside TLS. It verifies the token, compares it with the
//! mapping, logs in to the PostgreSQL server and relays. For any other role the client
//! authenticates at the server, and the gateway forwards the SCRAM messages.
//!
//! A [`Gateway`] is one server; a [`Front`] leads the clients of a listener to several. [`ServerScript`]
//! prepares a PostgreSQL for production: the gateway signs in as a role by `peer`, by a certificate
//! that it signs itself ([`ClientCertificates`]), or by one password that all mapped roles share
//! ([`UpstreamMethod`]). Which principals may use a role is in the database, in one of two
//! [`Flavour`]s, or in rules ([`RoleRules`]).
//!
//! [`init()`] prepares the PostgreSQL of a local cloud. Only the gateway may be able to reach that
//! server, over a Unix socket, and the server must ask every role for SCRAM-SHA-256: the password of
//! a mapped role is known to the gateway (Flexible Server) or public (a client id, Single Server).
//!
//! As on Azure, a session continues after its token has expired, and a new session needs a new
//! token, unless a [`SessionExpiry`] says otherwise.

mod administrators;
mod ask_method;
mod attempt;
mod authority;
mod client_certificates;
mod control;
mod directory;
mod expiry;
mod flexible;
mod front;
mod init;
mod jwks_url;
mod lexer;
mod live;
mod login;
mod login_log;
mod membership;
mod oauth;
mod observed;
mod pooler;
mod principal;
mod refusal;
mod rewriter;
mod role_mapping;
mod rules;
mod script;
mod security_label;
mod setting;
mod several;
mod single;
mod startup_option;
mod status;
mod telemetry;
mod token_request;
mod upstream;
mod upstream_login;
mod upstream_stream;
mod warm;
mod warm_pool;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use pgentra_verify::Verifier;
use secrecy::SecretString;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

pub use administrators::{
    ChangeError, GROUP_SYNC, add_administrator, remove_administrator, set_directory, set_group_sync,
    sync_groups,
};
pub use ask_method::{AUTH_SETTING, AskMethod, UnknownAskMethod};
pub use authority::{AuthorityError, SigningAuthority};
pub use client_certificates::{CERTIFICATE_LIFETIME, ClientCertificates};
pub use directory::{
    ANSWER_LIFETIME, AccountCheck, DirectoryChecks, DirectoryPrincipal, DirectoryQuestions,
    PrincipalDirectory, QuestionError,
};
pub use expiry::SessionExpiry;
pub use front::{Front, GatewayShutdown, Servers};
pub use init::{InitError, Setup, init};
pub use jwks_url::{IssuerKeys, JwksUrl};
pub use login_log::{LoginCounts, LoginDecision, LoginLog, LoginRecord, LoginRefusal};
pub use oauth::Oauth;
pub use observed::{LoginCheck, LoginEvent, LoginOutcome};
pub use pgentra_session::Route;
pub use pgentra_wire::session_attrs::SessionAttrs;
pub use pooler::Pooler;
pub use principal::{GroupMembership, Principal, PrincipalKind, UnknownPrincipalKind};
pub use rules::{PrincipalRule, RoleRules, SharedRules};
pub use script::{GatewayNetwork, NotANetwork, SERVICE_ROLE, ServerScript, ServerScriptMethod};
pub use telemetry::GatewayTelemetry;
pub use upstream::{ServiceAccount, TlsUpstream, UpstreamAddress, UpstreamMethod, UpstreamTlsError};
pub use warm_pool::WarmSessions;

use control::{ControlConnection, ControlError};
use pgentra_session::Limits;
use pgentra_session::attempts::Attempts;
use pgentra_session::cancel::CancelTable;
use pgentra_session::client::Client;
use warm_pool::{WaitingSessions, WarmPool};

/// The configuration of a gateway: one server.
#[derive(Clone)]
pub struct Config {
    /// The server's name in metrics and audit lines.
    pub name: String,
    /// TLS for clients, where the gateway serves a listener by itself ([`Gateway::serve`]).
    pub tls: ClientTls,
    /// The PostgreSQL server.
    pub upstream: UpstreamAddress,
    /// A PgBouncer in front of that server, through which sessions are opened; the mapping is read without it.
    /// Cannot be combined with `further`, `warm`, an `expiry` and `method`s other than passwords. `None`: sessions
    /// are opened at the server.
    pub pooler: Option<Pooler>,
    /// Further servers with the same data, such as standbys, which are prepared as the first one is.
    pub further: Vec<UpstreamAddress>,
    /// Which of the servers a client is led to: the first that fits, as in libpq. With
    /// [`SessionAttrs::Any`], the first that can be reached.
    pub target_session_attrs: SessionAttrs,
    /// How the gateway signs in there.
    pub method: UpstreamMethod,
    /// The role through which the gateway reads the mapping and ends sessions.
    pub service: ServiceAccount,
    /// Which principals may use which roles.
    pub roles: RoleSource,
    /// What becomes of clients whose role is not mapped.
    pub unmapped: Unmapped,
    /// [`Flavour::Single`]: the server name after the last `@` of a user name. Unused otherwise.
    pub server_name: String,
    /// Verify tokens; the policy of each names a tenant and the audience. At least one.
    pub verifiers: Vec<Arc<Verifier>>,
    /// How clients are asked for a token, and what a client of OAUTHBEARER is told.
    pub oauth: Oauth,
    /// The current time for the verification of tokens.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// What happens to a session when its token expires.
    pub expiry: SessionExpiry,
    /// What the directory of the tenant is asked for; `None`: nothing.
    pub directory: Option<DirectoryChecks>,
    /// Which sessions are signed in before a client asks for them.
    pub warm: WarmSessions,
    /// Limits for clients and sessions.
    pub limits: Limits,
    /// Where metrics and audit lines go.
    pub telemetry: GatewayTelemetry,
}

/// TLS for clients.
#[derive(Clone)]
pub enum ClientTls {
    /// Every client has to use it. The gateway adds PostgreSQL's ALPN protocol.
    Required(Arc<rustls::ServerConfig>),
    /// Clients of this machine may do without, so that their tokens can be read by whatever reads
    /// its loopback interface.
    DangerOptional(Option<Arc<rustls::ServerConfig>>),
}

/// Which principals may use which roles.
#[derive(Clone, Debug)]
pub enum RoleSource {
    /// The mapping in the database, made by [`init()`] or a [`ServerScript`].
    Database(Flavour),
    /// Rules outside of the database.
    Rules(SharedRules),
}

/// What becomes of clients whose role is not mapped to a principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmapped {
    /// They are refused.
    #[default]
    Refuse,
    /// They authenticate at the server by SCRAM-SHA-256. The server must ask each of them for it:
    /// a client that it lets in without a question is refused.
    Password,
}

impl ClientTls {
    fn config(&self) -> Option<&Arc<rustls::ServerConfig>> {
        match self {
            Self::Required(config) | Self::DangerOptional(Some(config)) => Some(config),
            Self::DangerOptional(None) => None,
        }
    }

    /// Whether this client may do without TLS.
    fn admits_without(&self, client: &Client) -> bool {
        matches!(self, Self::DangerOptional(_)) && !client.is_remote()
    }
}

impl From<Arc<rustls::ServerConfig>> for ClientTls {
    fn from(config: Arc<rustls::ServerConfig>) -> Self {
        Self::Required(config)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required(_) => "Required",
            Self::DangerOptional(_) => "DangerOptional",
        })
    }
}

impl Config {
    /// Where sessions are opened and cancelled.
    pub(crate) fn sessions_at(&self) -> &UpstreamAddress {
        self.pooler.as_ref().map_or(&self.upstream, |pooler| &pooler.address)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("upstream", &self.upstream)
            .field("pooler", &self.pooler)
            .field("further", &self.further)
            .field("target_session_attrs", &self.target_session_attrs)
            .field("method", &self.method)
            .field("service", &self.service)
            .field("roles", &self.roles)
            .field("unmapped", &self.unmapped)
            .field("server_name", &self.server_name)
            .field("oauth", &self.oauth)
            .field("expiry", &self.expiry)
            .field("directory", &self.directory)
            .field("warm", &self.warm)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The Azure product that the gateway imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Azure Database for PostgreSQL Flexible Server: roles are mapped by object id through the `pgaadauth_*` functions
    /// in the database `postgres`.
    Flexible,
    /// Azure Database for PostgreSQL Single Server: members of `azure_ad_user` sign in with tokens; a role's password
    /// is the client id or object id of its principal. User names may end in `@server`.
    Single,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flexible => "flexible",
            Self::Single => "single",
        })
    }
}

impl FromStr for Flavour {
    type Err = UnknownFlavour;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "flexible" => Ok(Self::Flexible),
            "single" => Ok(Self::Single),
            _ => Err(UnknownFlavour),
        }
    }
}

/// A text that is not the name of a [`Flavour`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a flavour: write \"flexible\" or \"single\"")]
pub struct UnknownFlavour;

/// A gateway: one server, or several with the same data. It opens no socket before it serves.
pub struct Gateway {
    pub(crate) config: Config,
    /// A gateway for each of [`Config::further`], with the same limits.
    pub(crate) further: Vec<Arc<Gateway>>,
    /// When the server could not be asked for its state, if that was the last time.
    pub(crate) failed_at: Mutex<Option<Instant>>,
    pub(crate) control: ControlConnection,
    pub(crate) cancel: CancelTable,
    pub(crate) sessions: Arc<Semaphore>,
    /// Limits the clients that authenticate at the server.
    pub(crate) passing: Arc<Semaphore>,
    /// Tokens that were refused.
    pub(crate) attempts: Arc<Attempts>,
    /// The password of mapped roles, with [`UpstreamMethod::Password`].
    pub(crate) own_password: OnceCell<SecretString>,
    /// The sessions that wait at this server.
    pub(crate) warm: WarmPool,
    /// Those that wait at this server and at the others with the same data, which share the limits.
    pub(crate) all_waiting: Arc<[WaitingSessions]>,
}

impl Gateway {
    /// A gateway with this configuration.
    pub fn new(config: Config) -> Self {
        let within = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let sessions = within(config.limits.connections);
        let passing = within((config.limits.connections / 4).max(1));
        let attempts = Arc::new(Attempts::default());
        // A session of Single Server answers for the client whose id its server has compared.
        let warm = match config.roles {
            RoleSource::Database(Flavour::Single) => WarmSessions::default(),
            _ => config.warm,
        };
        let pool = || WarmPool::new(warm, config.telemetry.sessions_ready(&config.name));
        let mut pools: Vec<_> = (0..=config.further.len()).map(|_| pool()).collect();
        let all_waiting: Arc<[_]> = pools.iter().map(WarmPool::waiting).collect();
        let of = |config: Config, further: Vec<Arc<Gateway>>, warm: WarmPool| Self {
            control: ControlConnection::new(
                config.upstream.clone(),
                config.method.clone(),
                config.service.clone(),
            ),
            further,
            failed_at: Mutex::default(),
            cancel: CancelTable::default(),
            sessions: sessions.clone(),
            passing: passing.clone(),
            attempts: attempts.clone(),
            own_password: OnceCell::new(),
            warm,
            all_waiting: all_waiting.clone(),
            config,
        };
        let own = pools.remove(0);
        let member = |(upstream, pool): (&UpstreamAddress, WarmPool)| {
            let config = Config { upstream: upstream.clone(), further: Vec::new(), ..config.clone() };
            Arc::new(of(config, Vec::new(), pool))
        };
        let further = config.further.iter().zip(pools).map(member).collect();
        of(config, further, own)
    }
}

/// Why the gateway cannot work with its server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayCheckError {
    /// No connection to the server can be opened, or none with TLS that verifies.
    #[error("the server at {server} cannot be reached")]
    Unreachable {
        /// The address of the server.
        server: String,
        /// The reason.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The gateway cannot sign in as its own role.
    #[error("the gateway cannot sign in at {server} as \"{role}\"")]
    SignIn {
        /// The address of the server.
        server: String,
        /// The role of the gateway.
        role: String,
        /// The reason.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// None of several servers fits [`Config::target_session_attrs`].
    #[error("no client can be led to a server")]
    NoServer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The mapping cannot be read.
    #[error("the mapping of roles cannot be read")]
    Mapping(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Gateway {
    /// The rules, if the mapping is outside of the database.
    pub fn rules(&self) -> Option<&SharedRules> {
        match &self.config.roles {
            RoleSource::Rules(rules) => Some(rules),
            RoleSource::Database(_) => None,
        }
    }

    /// Signs in as the service account at the server that would take a client, and reads the mapping.
    /// Returns the server's version and the number of mapped roles.
    ///
    /// # Errors
    /// See [`GatewayCheckError`].
    pub async fn check(&self) -> Result<(String, usize), GatewayCheckError> {
        let taking = self.suitable().await;
        taking.map_err(|error| GatewayCheckError::NoServer(Box::new(error)))?.check_member().await
    }

    async fn check_member(&self) -> Result<(String, usize), GatewayCheckError> {
        let server = self.config.upstream.to_string();
        let failed = |cause| match cause {
            ControlError::Dial(cause) => GatewayCheckError::Unreachable { server, cause: Box::new(cause) },
            cause => GatewayCheckError::SignIn {
                server,
                role: self.config.service.name.clone(),
                cause: Box::new(cause),
            },
        };
        let rows = self.control.query("SHOW server_version", &[]).await.map_err(failed)?;
        let version = rows.first().map(|row| row.get::<_, String>(0)).unwrap_or_default();
        let sql = match &self.config.roles {
            RoleSource::Rules(rules) => return Ok((version, rules.current().roles.len())),
            RoleSource::Database(Flavour::Flexible) => flexible::COUNT,
            RoleSource::Database(Flavour::Single) => single::COUNT,
        };
        let unreadable = |cause| GatewayCheckError::Mapping(Box::new(cause));
        let rows = self.control.query(sql, &[]).await.map_err(unreadable)?;
        match rows.first().map(|row| (row.get::<_, i64>(0), row.get::<_, bool>(1))) {
            Some((count, true)) => Ok((version, usize::try_from(count).unwrap_or_default())),
            _ => Err(unreadable(ControlError::Mapping)),
        }
    }

    /// Fetches the signing keys of every tenant if needed, and returns their number.
    ///
    /// # Errors
    /// The keys of a tenant cannot be had.
    pub async fn keys(&self) -> Result<usize, pgentra_verify::FetchError> {
        let mut number = 0;
        for verifier in &self.config.verifiers {
            number += verifier.warm((self.config.clock)()).await?;
        }
        Ok(number)
    }

    /// Renews signing keys that will soon be too old, and those alone.
    ///
    /// # Errors
    /// The keys of a tenant cannot be had; the old ones stay in use.
    pub async fn refresh_keys(&self) -> Result<(), pgentra_verify::FetchError> {
        let mut outcome = Ok(());
        for verifier in &self.config.verifiers {
            outcome = outcome.and(verifier.refresh((self.config.clock)()).await);
        }
        outcome
    }

    /// Whether a token would sign in as a role; `None`: the role is not mapped. The server is asked
    /// for the mapping, and for nothing else.
    ///
    /// # Errors
    /// The SQLSTATE and the message that a client gets.
    pub async fn judge(
        &self,
        role: &str,
        token: &str,
    ) -> Result<Option<pgentra_verify::Principal>, GatewayRefusal> {
        self.would_sign_in(role, token).await.map_err(GatewayRefusal::of)
    }
}

/// What a client gets that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {sqlstate})")]
pub struct GatewayRefusal {
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The message.
    pub message: String,
}

impl GatewayRefusal {
    fn of(error: pgentra_session::login_error::LoginError) -> Self {
        use pgentra_session::login_error::LoginError;
        match error {
            LoginError::Rejected(fields) => {
                Self { sqlstate: fields.sqlstate().into_owned(), message: fields.message().into_owned() }
            }
            LoginError::Unanswered(error) => Self { sqlstate: String::new(), message: error.to_string() },
            LoginError::Disconnected(error) => Self { sqlstate: String::new(), message: error.to_string() },
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_are_written_as_they_are_read() {
        for flavour in [Flavour::Flexible, Flavour::Single] {
            assert_eq!(flavour.to_string().parse(), Ok(flavour));
        }
        assert_eq!("Flexible".parse::<Flavour>(), Err(UnknownFlavour));
    }
}
