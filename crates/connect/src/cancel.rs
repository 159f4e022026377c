//! Stopping a statement from outside its session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgentra_wire::backend::BackendKeyData;
use pgentra_wire::startup::CancelRequest;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::dial::{self, Watch};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::target::{SslNegotiation, Target};
use crate::tls;

/// Stops the statement that a session runs, over a connection of its own. It sends a cancel key, never a token, and
/// that too only inside verified TLS.
#[derive(Debug, Clone)]
pub struct Canceller {
    tls: Arc<ClientConfig>,
    negotiation: SslNegotiation,
    host: String,
    address: Option<SocketAddr>,
    limit: Duration,
    request: CancelRequest,
}

impl Canceller {
    pub(crate) fn new(target: &Target, tls: Arc<ClientConfig>, host: &str, key: BackendKeyData) -> Canceller {
        Canceller {
            tls,
            negotiation: target.ssl_negotiation(),
            host: host.to_owned(),
            address: None,
            limit: target.connect_timeout(),
            request: CancelRequest { process_id: key.process_id, key: key.key },
        }
    }

    pub(crate) fn at(mut self, address: SocketAddr) -> Canceller {
        self.address = Some(address);
        self
    }

    /// Asks the server to stop the statement. Success means that the server has taken the request; it never says
    /// whether there was a statement to stop (PostgreSQL, "Canceling Requests in Progress").
    ///
    /// # Errors
    /// The server cannot be reached, or not verified; a session over a stream that the caller opened, whose address
    /// is unknown.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let address =
            self.address.ok_or_else(|| ConnectError::config("the address of the session is not known"))?;
        let stream = dial::dial(address, Watch::default(), self.limit).await?;
        self.cancel_over(stream).await
    }

    /// The same over a stream that the caller opened to the session's server.
    ///
    /// # Errors
    /// The server cannot be verified, or closes the connection early.
    pub async fn cancel_over<S>(&self, stream: S) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let asked = async {
            let mut stream = tls::secure(stream, &self.host, self.negotiation, &self.tls).await?;
            let mut out = BytesMut::new();
            self.request.encode(&mut out);
            let sent = async {
                stream.write_all(&out).await?;
                stream.flush().await?;
                // The server closes the connection as its response; some do so without `close_notify`.
                match stream.read(&mut [0]).await {
                    Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
                    _ => Ok(()),
                }
            };
            let failed = |error| {
                ConnectError::protocol("the connection broke during the request to cancel").because(error)
            };
            sent.await.map_err(failed)
        };
        timeout(self.limit, asked).await.unwrap_or_else(|_| {
            let message = format!("{} did not take the request to cancel within {:?}", self.host, self.limit);
            Err(ConnectError::new(ConnectErrorKind::Timeout, message))
        })
    }
}
