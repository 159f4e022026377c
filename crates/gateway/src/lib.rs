//! The server side: Entra tokens in front of any PostgreSQL.
//!
//! The gateway answers as Azure Database for PostgreSQL does. A role that is mapped to an Entra principal is asked for
//! its token as a clear-text password, inside TLS; the token is verified and compared with the mapping; then the gateway
//! logs in to the PostgreSQL behind it and relays. Any other role goes through the server's own authentication, of which
//! the gateway sees nothing but SCRAM messages.
//!
//! [`init()`] prepares a PostgreSQL for it, in one of two [`Flavour`]s. The PostgreSQL must be reachable by the gateway
//! alone, over a Unix socket, and ask every role for SCRAM-SHA-256: what a mapped role is given as its password there is
//! known to the gateway (Flexible Server) or to everybody (a client id, Single Server).
//!
//! What follows a token's expiry: nothing, as on Azure. A session outlives it, a new one needs a new token.

mod administrators;
mod control;
mod flexible;
mod init;
mod lexer;
mod login;
mod principal;
mod refusal;
mod serve;
mod setting;
mod single;
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
pub use init::{InitError, Setup, init};
pub use principal::{Principal, PrincipalKind, UnknownPrincipalKind};
pub use upstream::{ServiceAccount, Upstream};

use control::Control;
use pgentra_session::Limits;
use pgentra_session::cancel::CancelTable;

/// What a gateway is made of. Nothing has a default but [`Limits`].
#[derive(Clone)]
pub struct Config {
    /// The certificate and key to show. The ALPN protocol of PostgreSQL is set by the gateway.
    pub tls: Arc<rustls::ServerConfig>,
    /// The PostgreSQL behind the gateway, prepared by [`init()`].
    pub upstream: Upstream,
    /// The superuser through which the gateway reads the mapping.
    pub service: ServiceAccount,
    /// Which product to be.
    pub flavour: Flavour,
    /// [`Flavour::Single`]: the name behind the last `@` of a user name. Unused otherwise.
    pub server_name: String,
    /// Judges tokens; its policy names the tenant and the audience.
    pub verifier: Arc<Verifier>,
    /// The time at which tokens are judged.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// What the gateway takes on.
    pub limits: Limits,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("upstream", &self.upstream)
            .field("service", &self.service)
            .field("flavour", &self.flavour)
            .field("server_name", &self.server_name)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Which product of Azure the gateway is like.
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

/// A text that names no [`Flavour`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a flavour: write \"flexible\" or \"single\"")]
pub struct UnknownFlavour;

/// A gateway. Nothing is bound and nothing is connected until [`Gateway::serve`].
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) tls: TlsAcceptor,
    pub(crate) control: Control,
    pub(crate) cancel: CancelTable,
    pub(crate) sessions: Arc<Semaphore>,
    /// Clients that authenticate at the server behind.
    pub(crate) passing: Semaphore,
}

impl Gateway {
    /// A gateway of this configuration.
    pub fn new(config: Config) -> Self {
        let within = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            tls: pgentra_session::client::acceptor(&config.tls),
            control: Control::new(config.upstream.clone(), config.service.clone()),
            cancel: CancelTable::default(),
            sessions: within(config.limits.connections),
            passing: Semaphore::new((config.limits.connections / 4).clamp(1, Semaphore::MAX_PERMITS)),
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
