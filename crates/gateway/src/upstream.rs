//! The PostgreSQL behind the gateway.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pgentra_wire::startup::{CancelRequest, StartupMessage};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::upstream_login::{UpstreamLogin, UpstreamLoginError};
use pgentra_session::client::linger;

/// Time to connect to the server, which is on the same machine.
const DIAL: Duration = Duration::from_secs(10);
/// PostgreSQL closes the connection once it has handled a cancel request; the gateway waits at most
/// for this time.
const CANCEL: Duration = Duration::from_secs(10);

/// Where the PostgreSQL behind the gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamAddress {
    /// A Unix socket, `DIR/.s.PGSQL.PORT`.
    Unix {
        /// The folder of the socket: PostgreSQL's `unix_socket_directories`.
        dir: PathBuf,
        /// The port that is part of the socket's name.
        port: u16,
    },
}

/// A superuser of the PostgreSQL behind the gateway. `Debug` does not show the password.
#[derive(Clone)]
pub struct ServiceAccount {
    /// The name of a superuser role.
    pub name: String,
    /// The role's password, proven by SCRAM-SHA-256.
    pub password: SecretString,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("name", &self.name).finish_non_exhaustive()
    }
}

impl UpstreamAddress {
    /// Connects and sends the start-up.
    pub(crate) async fn start(
        &self,
        start: &StartupMessage,
    ) -> Result<UpstreamLogin<UnixStream>, UpstreamLoginError> {
        UpstreamLogin::start(self.dial().await?, start).await
    }

    /// Forwards a cancel request and waits until the server has handled it.
    pub(crate) async fn cancel(&self, request: &CancelRequest) -> std::io::Result<()> {
        let mut stream = self.dial().await?;
        let mut out = bytes::BytesMut::new();
        request.encode(&mut out);
        stream.write_all(&out).await?;
        tokio::time::timeout(CANCEL, linger(&mut stream)).await?
    }

    /// The configuration of tokio-postgres for the same server, in the database `postgres`.
    pub(crate) fn driver_config(&self, service: &ServiceAccount) -> tokio_postgres::Config {
        let Self::Unix { dir, port } = self;
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(dir)
            .port(*port)
            .user(&service.name)
            .password(service.password.expose_secret())
            .dbname("postgres")
            .connect_timeout(DIAL);
        config
    }

    async fn dial(&self) -> std::io::Result<UnixStream> {
        let Self::Unix { dir, port } = self;
        let path = dir.join(format!(".s.PGSQL.{port}"));
        tokio::time::timeout(DIAL, UnixStream::connect(path)).await?
    }
}
