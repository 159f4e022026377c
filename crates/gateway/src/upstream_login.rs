//! The start-up of a connection to the server.

use std::io;

use bytes::BytesMut;
use pgentra_wire::WireError;
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::fields::Fields;
use pgentra_wire::frame::Header;
use pgentra_wire::frontend::{self, SaslInitialResponse};
use pgentra_wire::startup::StartupMessage;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use pgentra_session::auth_message::Overwritten;

/// A connection to the server. `S` is its stream.
pub(crate) struct UpstreamLogin<S> {
    stream: S,
    received: BytesMut,
}

/// Why the log-in at the server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamLoginError {
    #[error("the connection to the server broke")]
    Io(#[from] io::Error),
    #[error("the server does not speak the protocol")]
    Wire(#[from] WireError),
    #[error("the SCRAM exchange with the server failed")]
    Scram(#[source] io::Error),
    #[error("the server asks for an authentication method that is not SCRAM-SHA-256")]
    Method,
    /// The server sent an error.
    #[error("the server refused")]
    Refused(Fields),
}

impl<S: AsyncRead + AsyncWrite + Unpin> UpstreamLogin<S> {
    pub(crate) async fn start(stream: S, start: &StartupMessage) -> Result<Self, UpstreamLoginError> {
        let mut server = Self { stream, received: BytesMut::new() };
        let mut out = BytesMut::new();
        start.encode(&mut out);
        server.send(&out).await?;
        Ok(server)
    }

    pub(crate) async fn read(&mut self) -> Result<BackendMessage, UpstreamLoginError> {
        loop {
            if let Some(message) = BackendMessage::decode(&mut self.received)? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(UpstreamLoginError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Sends a client's answer to an authentication request. It may be a password.
    pub(crate) async fn answer(&mut self, body: &[u8]) -> Result<(), UpstreamLoginError> {
        let mut out = Overwritten(BytesMut::with_capacity(body.len() + Header::SIZE));
        frontend::encode_sasl_response(body, &mut out.0)?;
        self.send(&out.0).await
    }

    /// Sends bytes and flushes them.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), UpstreamLoginError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Logs in with a password, up to and including AuthenticationOk. The server must prove that it
    /// knows the password too.
    pub(crate) async fn log_in(&mut self, password: &[u8]) -> Result<(), UpstreamLoginError> {
        let mut scram: Option<ScramSha256> = None;
        let mut out = BytesMut::new();
        let mut proven = false;
        loop {
            let asked = match self.read().await? {
                BackendMessage::Authentication(asked) => asked,
                BackendMessage::ErrorResponse(fields) => return Err(UpstreamLoginError::Refused(fields)),
                BackendMessage::NoticeResponse(_) => continue,
                _ => return Err(WireError::Malformed("a message that does not belong to a log-in").into()),
            };
            match (asked, &mut scram) {
                // A server that sends no challenge trusts the connection; one that began SCRAM has
                // to finish it.
                (Authentication::Ok, None) => return Ok(()),
                (Authentication::Ok, Some(_)) if proven => return Ok(()),
                (Authentication::Sasl(mechanisms), None) if mechanisms.offers(SCRAM_SHA_256) => {
                    let begun = scram.insert(ScramSha256::new(password, ChannelBinding::unsupported()));
                    let mechanism = SCRAM_SHA_256.as_bytes();
                    SaslInitialResponse { mechanism, data: Some(begun.message()) }.encode(&mut out)?;
                }
                (Authentication::SaslContinue(data), Some(scram)) => {
                    scram.update(&data).map_err(UpstreamLoginError::Scram)?;
                    frontend::encode_sasl_response(scram.message(), &mut out)?;
                }
                (Authentication::SaslFinal(data), Some(scram)) => {
                    scram.finish(&data).map_err(UpstreamLoginError::Scram)?;
                    proven = true;
                }
                _ => return Err(UpstreamLoginError::Method),
            }
            let bytes = out.split();
            self.send(&bytes).await?;
        }
    }

    /// The stream, and the bytes received after the last message.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.received)
    }
}
