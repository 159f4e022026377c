//! The start-up of a connection to the server.

use std::io;

use bytes::BytesMut;
use pgentra_session::kept::{self, Fingerprint, Unanswered};
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::client_login::{ClientLogin, ClientLoginError};
use pgentra_wire::fields::Fields;
use pgentra_wire::frame::Header;
use pgentra_wire::frontend::SaslInitialResponse;
use pgentra_wire::startup::StartupMessage;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use pgentra_session::auth_message::Overwritten;

/// More bytes than a server sends between AuthenticationOk and ReadyForQuery.
const GREETING: usize = 256 * 1024;

/// A connection to the server. `S` is its stream.
pub(crate) struct UpstreamLogin<S> {
    stream: S,
    received: BytesMut,
    login: ClientLogin,
}

/// Why the log-in at the server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamLoginError {
    #[error("the connection to the server broke")]
    Io(#[from] io::Error),
    #[error("the server does not speak the protocol")]
    Protocol(#[source] ClientLoginError),
    #[error("the SCRAM exchange with the server failed")]
    Scram(#[source] io::Error),
    #[error("the server asks for {0}; {1}")]
    Method(&'static str, &'static str),
    /// The server sent an error.
    #[error("the server refused")]
    Refused(Fields),
}

impl From<ClientLoginError> for UpstreamLoginError {
    fn from(error: ClientLoginError) -> Self {
        match error {
            ClientLoginError::Refused(fields) => Self::Refused(fields),
            error => Self::Protocol(error),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> UpstreamLogin<S> {
    pub(crate) async fn start(stream: S, start: &StartupMessage) -> Result<Self, UpstreamLoginError> {
        let mut out = BytesMut::new();
        let login = ClientLogin::start(start, &mut out);
        let mut server = Self { stream, received: BytesMut::new(), login };
        server.send(&out).await?;
        Ok(server)
    }

    pub(crate) async fn read(&mut self) -> Result<BackendMessage, UpstreamLoginError> {
        loop {
            if let Some(message) = self.login.read(&mut self.received)? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(UpstreamLoginError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Whether the server waits for an answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.login.is_asked()
    }

    /// Sends a client's answer to an authentication request. It may be a password.
    pub(crate) async fn answer(&mut self, body: &[u8]) -> Result<(), UpstreamLoginError> {
        let mut out = Overwritten(BytesMut::with_capacity(body.len() + Header::SIZE));
        self.login.answer_raw(body, &mut out.0)?;
        self.send(&out.0).await
    }

    /// Sends bytes and flushes them.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), UpstreamLoginError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Logs in with a password, up to and including AuthenticationOk. The server must prove that it
    /// knows the password too, unless it asks for none.
    pub(crate) async fn log_in(&mut self, password: &[u8]) -> Result<(), UpstreamLoginError> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let mut out = BytesMut::new();
        loop {
            match self.read().await? {
                BackendMessage::Authentication(Authentication::Ok) => return Ok(()),
                BackendMessage::Authentication(Authentication::Sasl(mechanisms))
                    if mechanisms.offers(SCRAM_SHA_256) =>
                {
                    let mechanism = SCRAM_SHA_256.as_bytes();
                    let initial = SaslInitialResponse { mechanism, data: Some(scram.message()) };
                    self.login.answer_sasl(&initial, &mut out)?;
                }
                BackendMessage::Authentication(Authentication::SaslContinue(data)) => {
                    scram.update(&data).map_err(UpstreamLoginError::Scram)?;
                    self.login.answer_sasl_continue(scram.message(), &mut out)?;
                }
                BackendMessage::Authentication(Authentication::SaslFinal(data)) => {
                    scram.finish(&data).map_err(UpstreamLoginError::Scram)?;
                }
                BackendMessage::Authentication(other) => {
                    let needs = "pg_hba.conf has to ask for scram-sha-256 here";
                    return Err(UpstreamLoginError::Method(method(&other), needs));
                }
                _ => {}
            }
            let bytes = out.split();
            self.send(&bytes).await?;
        }
    }

    /// Waits for AuthenticationOk from a server that knows already who it is talking to.
    pub(crate) async fn be_trusted(&mut self) -> Result<(), UpstreamLoginError> {
        loop {
            match self.read().await? {
                BackendMessage::Authentication(Authentication::Ok) => return Ok(()),
                BackendMessage::Authentication(other) => {
                    let needs = "pg_hba.conf has to have peer or cert here, as the gateway is configured";
                    return Err(UpstreamLoginError::Method(method(&other), needs));
                }
                _ => {}
            }
        }
    }

    /// Waits, after AuthenticationOk, until everything up to ReadyForQuery has been received, and leaves
    /// it to be read.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<(), UpstreamLoginError> {
        while self.greeting()?.is_none() {
            if self.received.len() > GREETING {
                return Err(ClientLoginError::TooManyMessages.into());
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(UpstreamLoginError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    /// The length of what has been received up to ReadyForQuery, if that is all there.
    fn greeting(&self) -> Result<Option<usize>, UpstreamLoginError> {
        let mut rest = BytesMut::from(&self.received[..]);
        loop {
            match BackendMessage::decode(&mut rest).map_err(ClientLoginError::from)? {
                Some(BackendMessage::ReadyForQuery(_)) => return Ok(Some(self.received.len() - rest.len())),
                Some(BackendMessage::ErrorResponse(fields)) => {
                    return Err(UpstreamLoginError::Refused(fields));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Asks a session that waits for its client for its fingerprint. Other messages of the server stay to
    /// be read. See [`kept::identify`].
    pub(crate) async fn identify(&mut self) -> Result<Option<Fingerprint>, Unanswered> {
        let ready = self.greeting().ok().flatten().ok_or(Unanswered::AuthMessage)?;
        let mut after = self.received.split_off(ready);
        let aside = |message: &[u8]| self.received.extend_from_slice(message);
        kept::identify(&mut self.stream, &mut after, aside).await
    }

    /// The stream.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Ends a session that its client did not get.
    pub(crate) async fn end(mut self) {
        kept::end(&mut self.stream).await;
    }

    /// The stream, and the bytes received after the last message.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.received)
    }
}

/// An authentication request in the words of `pg_hba.conf`.
pub(crate) fn method(request: &Authentication) -> &'static str {
    match request {
        Authentication::CleartextPassword => "a password in clear text (password)",
        Authentication::Md5Password { .. } => "an MD5 password (md5)",
        Authentication::Sasl(_) => "a password by SASL (scram-sha-256)",
        _ => "another authentication method",
    }
}
