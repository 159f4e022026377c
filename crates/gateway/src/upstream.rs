//! The PostgreSQL behind the gateway.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgentra_session::client::{Socket as _, linger};
use pgentra_wire::startup::{CancelRequest, StartupMessage, encode_ssl_request};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::client_certificates::ClientCertificates;
use crate::upstream_login::{UpstreamLogin, UpstreamLoginError};
use crate::upstream_stream::UpstreamStream;

/// Time to connect to the server, with TLS.
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
    /// TLS over TCP. The certificate and the name of the server are verified.
    Tls(TlsUpstream),
}

/// A server that is reached by TLS.
#[derive(Clone)]
pub struct TlsUpstream {
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// Why a server cannot be reached by TLS.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct UpstreamTlsError {
    what: &'static str,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// How the gateway signs in at the server as a role.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UpstreamMethod {
    /// By SCRAM-SHA-256, with the password in the table that [`init()`](crate::init()) makes.
    Password,
    /// By SCRAM-SHA-256, with the password of the [`ServiceAccount`], which every mapped role has.
    SharedPassword,
    /// The server trusts the user that the gateway runs as (`peer` in `pg_hba.conf`).
    Peer,
    /// By a certificate of the role (`cert` in `pg_hba.conf`).
    Certificate(Arc<ClientCertificates>),
}

/// The role as which the gateway reads the mapping and ends sessions. `Debug` does not show the
/// password.
#[derive(Clone)]
pub struct ServiceAccount {
    /// The name of the role.
    pub name: String,
    /// The role's password, proven by SCRAM-SHA-256; unused by [`UpstreamMethod::Peer`] and
    /// [`UpstreamMethod::Certificate`].
    pub password: SecretString,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TlsUpstream {
    /// The server at this host name or address, whose certificate one of the authorities in the PEM
    /// text `roots` must have issued for that name.
    ///
    /// # Errors
    /// If the host is no name, or the text has no certificate.
    pub fn new(host: &str, port: u16, roots: &[u8]) -> Result<Self, UpstreamTlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| UpstreamTlsError::new("the host is no name and no address").because(error))?;
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(roots) {
            let unreadable = "the authorities' certificates cannot be read";
            let certificate =
                certificate.map_err(|error| UpstreamTlsError::new(unreadable).because(error))?;
            store.add(certificate).map_err(|error| UpstreamTlsError::new(unreadable).because(error))?;
        }
        if store.is_empty() {
            return Err(UpstreamTlsError::new("there is no certificate of an authority"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| UpstreamTlsError::new("TLS cannot be set up").because(error))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self { host: host.to_owned(), port, name, config: Arc::new(config) })
    }

    async fn dial(&self, method: &UpstreamMethod, role: &str) -> io::Result<UpstreamStream> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.prepare();
        let mut request = BytesMut::new();
        encode_ssl_request(&mut request);
        stream.write_all(&request).await?;
        // Exactly one byte: what follows in clear text must not be taken for TLS (CVE-2021-23222).
        if stream.read_u8().await? != b'S' {
            return Err(io::Error::other("the server declines TLS"));
        }
        let config = match method {
            UpstreamMethod::Certificate(certificates) => {
                let mut config = ClientConfig::clone(&self.config);
                config.client_auth_cert_resolver = certificates.of(role).map_err(io::Error::other)?;
                // A resumed session would keep another role's certificate.
                config.resumption = rustls::client::Resumption::disabled();
                Arc::new(config)
            }
            _ => Arc::clone(&self.config),
        };
        let stream = TlsConnector::from(config).connect(self.name.clone(), stream).await?;
        Ok(UpstreamStream::Tls(Box::new(stream)))
    }
}

impl PartialEq for TlsUpstream {
    fn eq(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port) && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for TlsUpstream {}

impl fmt::Debug for TlsUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsUpstream")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl UpstreamTlsError {
    fn new(what: &'static str) -> Self {
        Self { what, cause: None }
    }

    fn because(self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(error.into()), ..self }
    }
}

impl UpstreamAddress {
    /// Connects and sends the start-up. `role` is the one of a certificate.
    pub(crate) async fn start(
        &self,
        method: &UpstreamMethod,
        role: &str,
        start: &StartupMessage,
    ) -> Result<UpstreamLogin<UpstreamStream>, UpstreamLoginError> {
        UpstreamLogin::start(self.dial(method, role).await?, start).await
    }

    /// Forwards a cancel request and waits until the server has handled it.
    pub(crate) async fn cancel(&self, request: &CancelRequest) -> io::Result<()> {
        // A cancel request is not authenticated, so it takes no certificate.
        let mut stream = self.dial(&UpstreamMethod::Peer, "").await?;
        let mut out = BytesMut::new();
        request.encode(&mut out);
        stream.write_all(&out).await?;
        stream.flush().await?;
        tokio::time::timeout(CANCEL, linger(&mut stream)).await?
    }

    /// The configuration of tokio-postgres for the service account, in the database `postgres`.
    pub(crate) fn driver_config(service: &ServiceAccount) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(&service.name).dbname("postgres");
        let password = service.password.expose_secret();
        if !password.is_empty() {
            config.password(password);
        }
        config
    }

    pub(crate) async fn dial(&self, method: &UpstreamMethod, role: &str) -> io::Result<UpstreamStream> {
        let dialled = async {
            match self {
                Self::Unix { dir, port } => {
                    UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await.map(UpstreamStream::Unix)
                }
                Self::Tls(server) => server.dial(method, role).await,
            }
        };
        tokio::time::timeout(DIAL, dialled).await?
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { dir, port } => write!(f, "{}:{port}", dir.display()),
            Self::Tls(TlsUpstream { host, port, .. }) => write!(f, "{host}:{port}"),
        }
    }
}
