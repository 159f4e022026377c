//! The gateway: Entra token authentication in front of any PostgreSQL.
//!
//! The gateway answers as Azure Database for PostgreSQL does. It asks a role that is mapped to an
//! Entra principal for a token as a cleartext password, or by OAUTHBEARER as PostgreSQL 18 does if
//! the client wants that ([`AUTH_SETTING`]), inside TLS. It verifies the token, compares it with the
//! mapping, logs in to the PostgreSQL server and relays. For any other role the client
//! authenticates at the server, and the gateway forwards the SCRAM messages.
//!
//! [`init()`] prepares a PostgreSQL, in one of two [`Flavour`]s. Only the gateway may be able to
//! reach that server, over a Unix socket, and the server must ask every role for SCRAM-SHA-256: the
//! password of a mapped role is known to the gateway (Flexible Server) or public (a client id,
//! Single Server).
//!
//! As on Azure, a session continues after its token has expired, and a new session needs a new
//! token.

mod administrators;
mod ask_method;
mod check;
mod control;
mod flexible;
mod init;
mod jwks_url;
mod lexer;
mod login;
mod oauth;
mod principal;
mod refusal;
mod serve;
mod setting;
mod single;
mod startup_option;
mod token_request;
mod upstream;
mod upstream_login;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use pgentra_verify::Verifier;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

pub use administrators::{ChangeError, add_administrator, remove_administrator, set_directory};
pub use ask_method::{AUTH_SETTING, AskMethod, UnknownAskMethod};
pub use check::GatewayRefusal;
pub use init::{InitError, Setup, init};
pub use jwks_url::{IssuerKeys, JwksUrl};
pub use oauth::Oauth;
pub use principal::{Principal, PrincipalKind, UnknownPrincipalKind};
pub use upstream::{ServiceAccount, UpstreamAddress};

use control::ControlConnection;
use pgentra_session::Limits;
use pgentra_session::attempts::Attempts;
use pgentra_session::cancel::CancelTable;

/// The configuration of a gateway. Only [`Limits`] has a default.
#[derive(Clone)]
pub struct Config {
    /// The certificate and key for clients. The gateway adds PostgreSQL's ALPN protocol.
    pub tls: Arc<rustls::ServerConfig>,
    /// The PostgreSQL server, prepared by [`init()`].
    pub upstream: UpstreamAddress,
    /// The superuser through which the gateway reads the mapping.
    pub service: ServiceAccount,
    /// The Azure product whose mapping of roles and messages clients get.
    pub flavour: Flavour,
    /// [`Flavour::Single`]: the server name after the last `@` of a user name. Unused otherwise.
    pub server_name: String,
    /// Verifies tokens; its policy names the tenant and the audience.
    pub verifier: Arc<Verifier>,
    /// How clients are asked for a token, and what a client of OAUTHBEARER is told.
    pub oauth: Oauth,
    /// The current time for the verification of tokens.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Limits for clients and sessions.
    pub limits: Limits,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("upstream", &self.upstream)
            .field("service", &self.service)
            .field("flavour", &self.flavour)
            .field("server_name", &self.server_name)
            .field("oauth", &self.oauth)
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

/// A gateway. It opens no socket before [`Gateway::serve`].
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) tls: TlsAcceptor,
    pub(crate) control: ControlConnection,
    pub(crate) cancel: CancelTable,
    pub(crate) sessions: Arc<Semaphore>,
    /// Limits the clients that authenticate at the server.
    pub(crate) passing: Semaphore,
    /// Tokens that were refused.
    pub(crate) attempts: Attempts,
}

impl Gateway {
    /// A gateway with this configuration.
    pub fn new(config: Config) -> Self {
        let within = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            tls: pgentra_session::client::acceptor(&config.tls),
            control: ControlConnection::new(config.upstream.clone(), config.service.clone()),
            cancel: CancelTable::default(),
            sessions: within(config.limits.connections),
            passing: Semaphore::new((config.limits.connections / 4).clamp(1, Semaphore::MAX_PERMITS)),
            attempts: Attempts::default(),
            config,
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
