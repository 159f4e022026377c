//! A session that is signed in.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode as DriverSslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};

use crate::cancel::Canceller;
use crate::error::ConnectError;
use crate::resume::Resumed;
use crate::signed_in::SignedIn;
use crate::tls_info::TlsInfo;

/// A session that is signed in, over verified TLS. Dropping it closes the connection.
///
/// It outlives the token it was opened with: the server checks the token at the sign-in only.
pub struct Session {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
    parameters: BTreeMap<String, String>,
    tls: TlsInfo,
    address: Option<SocketAddr>,
    canceller: Option<Canceller>,
    notices: Arc<OnceLock<OnNotice>>,
}

/// The callback for a notice.
type OnNotice = Box<dyn Fn(&DbError) + Send + Sync>;

impl Session {
    /// The client to run statements with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client to begin transactions with: [`Client::transaction`] borrows it mutably.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The negotiated TLS version and cipher suite.
    pub fn tls(&self) -> &TlsInfo {
        &self.tls
    }

    /// The address that was reached; `None` over a stream that the caller opened.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A setting that the server reported at the sign-in, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Calls `tell` with each later notice and warning of the server, in the task that drives the session: it must not
    /// block. Without it they go to the log. Only the first call counts.
    pub fn on_notice(&self, tell: impl Fn(&DbError) + Send + Sync + 'static) {
        let _ = self.notices.set(Box::new(tell));
    }

    /// What stops a statement of this session from outside; `None` if the server gave no cancel key, or over a stream
    /// that the caller opened.
    pub fn canceller(&self) -> Option<Canceller> {
        self.canceller.clone()
    }

    /// The client by itself, and the task that drives it: for pools. The task ends after the client was dropped.
    pub fn into_parts(self) -> (Client, JoinHandle<Result<(), tokio_postgres::Error>>) {
        (self.client, self.driver)
    }

    /// Ends the session and waits until the server was told.
    ///
    /// # Errors
    /// The connection had broken.
    pub async fn close(self) -> Result<(), ConnectError> {
        drop(self.client);
        let broken = || ConnectError::protocol("the connection broke before it was closed");
        match self.driver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken().because(error)),
            Err(error) => Err(broken().because(error)),
        }
    }

    /// Hands the signed-in stream to the driver. The driver is given no password, and neither TLS nor user name to use:
    /// what it sends as a start-up packet is swallowed.
    pub(crate) async fn resume<S>(signed_in: SignedIn<S>) -> Result<Session, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let SignedIn { stream, ready, tls, address, canceller, .. } = signed_in;
        let mut config = Config::new();
        config.user("signed in already").ssl_mode(DriverSslMode::Disable);
        let (client, connection) =
            config.connect_raw(Resumed::new(stream, ready.said), NoTls).await.map_err(|error| {
                ConnectError::protocol("the driver cannot take the session over").because(error)
            })?;
        let notices = Arc::new(OnceLock::new());
        let driver = tokio::spawn(drive(connection, Arc::clone(&notices)));
        Ok(Session { client, driver, parameters: ready.parameters, tls, address, canceller, notices })
    }
}

/// Moves messages between the client and the server until the client is dropped.
async fn drive<S>(
    mut connection: Connection<Resumed<S>, NoTlsStream>,
    notices: Arc<OnceLock<OnNotice>>,
) -> Result<(), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => match notices.get() {
                Some(tell) => tell(&notice),
                None => {
                    tracing::info!(
                        severity = notice.severity(),
                        message = notice.message(),
                        "the server says"
                    );
                }
            },
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "the session ended");
                return Err(error);
            }
            None => return Ok(()),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("tls", &self.tls)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
