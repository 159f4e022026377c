//! PostgreSQL's start-up and authentication, with a token for the one question that a token may answer.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use pgentra_wire::backend::{Authentication, BackendKeyData, BackendMessage};
use pgentra_wire::client_login::{ClientLogin, ClientLoginError};
use pgentra_wire::fields::Fields;
use pgentra_wire::oauthbearer;
use pgentra_wire::startup::StartupMessage;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroize as _;

use crate::advice::AttemptedSignIn;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::quote;
use crate::refusal::{Refusal, ServerMessage};
use crate::strike_out;

/// More than the bytes beside the token, in a PasswordMessage and in the first message of OAUTHBEARER.
const FRAME: usize = 64;

/// The server's messages from AuthenticationOk to ReadyForQuery.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Those messages once more, beginning with AuthenticationOk, and whatever came right behind them; without the token,
    /// should the server repeat it.
    pub(crate) said: Bytes,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) key: Option<BackendKeyData>,
}

/// Signs in over a stream that must be verified TLS already. The token is written once, as the answer to
/// AuthenticationCleartextPassword or to an offer of OAUTHBEARER; any other authentication request is an error.
pub(crate) async fn sign_in<S>(
    stream: &mut S,
    startup: &StartupMessage,
    sign_in: &AttemptedSignIn<'_>,
) -> Result<Ready, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    let login = ClientLogin::start(startup, &mut out);
    let mut conversation = Handshake { stream, received: BytesMut::with_capacity(4096), login, sign_in };
    conversation.send(&out).await?;
    conversation.authenticate().await?;
    conversation.wait_until_ready().await
}

struct Handshake<'a, S> {
    stream: &'a mut S,
    received: BytesMut,
    login: ClientLogin,
    sign_in: &'a AttemptedSignIn<'a>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handshake<'_, S> {
    async fn authenticate(&mut self) -> Result<(), ConnectError> {
        // Capacity for the whole message: a buffer that grows leaves a copy of the token in freed memory.
        let mut out = BytesMut::with_capacity(self.sign_in.token.len() + FRAME);
        let answered = match self.next().await? {
            BackendMessage::Authentication(Authentication::Ok) => return Ok(()),
            BackendMessage::Authentication(Authentication::CleartextPassword) => {
                self.login.answer_password(self.sign_in.token.as_bytes(), &mut out)
            }
            BackendMessage::Authentication(Authentication::Sasl(mechanisms))
                if mechanisms.offers(oauthbearer::MECHANISM) =>
            {
                self.login.answer_bearer(self.sign_in.token, &mut out)
            }
            BackendMessage::Authentication(other) => return Err(self.not_for_a_token(&other)),
            _ => return Err(out_of_order()),
        };
        let sent = match answered {
            Ok(()) => self.send(&out).await,
            Err(error) => Err(ConnectError::protocol(
                "the token does not fit into the message that the server asks for",
            )
            .because(error)),
        };
        out.as_mut().zeroize();
        sent?;
        match self.next().await? {
            BackendMessage::Authentication(Authentication::Ok) => Ok(()),
            BackendMessage::Authentication(Authentication::SaslContinue(data)) => {
                Err(self.refused_bearer(&data).await)
            }
            _ => Err(out_of_order()),
        }
    }

    /// Ends an OAUTHBEARER exchange whose token the server refused: its ErrorResponse comes after the dismissal, and what
    /// it wants instead comes before.
    async fn refused_bearer(&mut self, data: &[u8]) -> ConnectError {
        let wanted = match oauthbearer::BearerRefusal::decode(data) {
            Ok(refusal) => wanted(&refusal),
            Err(error) => {
                return ConnectError::protocol("the server does not follow RFC 7628").because(error);
            }
        };
        let mut out = BytesMut::new();
        if let Err(error) = self.login.dismiss_refusal(&mut out) {
            return self.failed(error);
        }
        if let Err(error) = self.send(&out).await {
            return error;
        }
        match self.next().await {
            Err(error) if error.kind() == ConnectErrorKind::Refused(Refusal::Validation) => {
                error.hinting(wanted)
            }
            Err(error) => error,
            Ok(_) => out_of_order(),
        }
    }

    async fn wait_until_ready(mut self) -> Result<Ready, ConnectError> {
        let mut said = BytesMut::new();
        let mut parameters = BTreeMap::new();
        let mut key = None;
        repeat(&BackendMessage::Authentication(Authentication::Ok), &mut said)?;
        loop {
            let message = self.next().await?;
            repeat(&message, &mut said)?;
            match message {
                BackendMessage::ParameterStatus(status) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    parameters.insert(text(&status.name), text(&status.value));
                }
                BackendMessage::BackendKeyData(data) => key = Some(data),
                BackendMessage::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        // Messages after ReadyForQuery belong to the session; they are not parsed here.
        while let Some(length) = strike_out::whole_message(&self.received) {
            let mut message = self.received.split_to(length);
            strike_out::in_message(&mut message, self.sign_in.token);
            said.extend_from_slice(&message);
        }
        said.extend_from_slice(&self.received);
        Ok(Ready { said: said.freeze(), parameters, key })
    }

    /// The next message, waiting for as much as it takes. The token is removed before the message is parsed, so that
    /// it can be in no error, notice, setting or relayed message.
    async fn next(&mut self) -> Result<BackendMessage, ConnectError> {
        loop {
            strike_out::in_message(&mut self.received, self.sign_in.token);
            match self.login.read(&mut self.received) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(self.failed(error)),
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => {
                    return Err(
                        ConnectError::protocol("the server hung up during the sign-in").hinting(HUNG_UP)
                    );
                }
                Ok(_) => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    fn failed(&self, error: ClientLoginError) -> ConnectError {
        match error {
            ClientLoginError::Refused(fields) => refused(&fields, self.sign_in),
            ClientLoginError::OutOfOrder => out_of_order(),
            ClientLoginError::TooManyMessages => {
                ConnectError::protocol("the server accepted the sign-in and never got ready")
            }
            error => {
                ConnectError::protocol("the server does not follow PostgreSQL's protocol").because(error)
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.stream.write_all(bytes).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)
    }

    /// A role that is mapped to Entra is asked for its token; any other method means that it is not.
    fn not_for_a_token(&self, asked: &Authentication) -> ConnectError {
        let method = match asked {
            Authentication::Sasl(mechanisms) if mechanisms.offers("SCRAM-SHA-256") => "a SCRAM password",
            Authentication::Md5Password { .. } => "an MD5 password",
            Authentication::Sasl(_) => "a SASL mechanism that is not supported",
            _ => "an authentication method that is not supported",
        };
        let role = quote::name(self.sign_in.role);
        let message = format!(
            "role {role} is not mapped to Entra: the server asks for {method}; the token was not sent"
        );
        let error = ConnectError::refused(Refusal::RoleNotMapped, message);
        match Refusal::RoleNotMapped.hint(self.sign_in, "") {
            Some(hint) => error.hinting(hint),
            None => error,
        }
    }
}

/// What a server's ErrorResponse means for this sign-in.
pub(crate) fn refused(fields: &Fields, sign_in: &AttemptedSignIn<'_>) -> ConnectError {
    let server = ServerMessage::read(fields, sign_in.token);
    let refusal = Refusal::classify(server.sqlstate(), server.message());
    let message = format!("the server refused: {} (SQLSTATE {})", server.message(), server.sqlstate());
    let hint = refusal.hint(sign_in, server.message()).or_else(|| server.hint().map(str::to_owned));
    let error = ConnectError::refused(refusal, message).saying(server);
    match hint {
        Some(hint) => error.hinting(hint),
        None => error,
    }
}

/// The next thing to try after a refusal that says what the server wants. Its texts are the server's.
fn wanted(refusal: &oauthbearer::BearerRefusal<'_>) -> String {
    let issuer = refusal.openid_configuration.as_deref().map(|url| format!(" of {}", quote::name(url)));
    let scope = refusal.scope.as_deref().filter(|scope| !scope.is_empty());
    let scope = scope.map(|scope| format!(" with the scope {}", quote::name(scope)));
    format!(
        "the server takes tokens{}{}: compare with pgentra token --decode, and name another resource with --resource",
        issuer.unwrap_or_default(),
        scope.unwrap_or_default()
    )
}

const HUNG_UP: &str =
    "look at the server's log; a pooler or proxy in between may not take a token of this length";

fn repeat(message: &BackendMessage, said: &mut BytesMut) -> Result<(), ConnectError> {
    message
        .encode(said)
        .map_err(|error| ConnectError::protocol("the server's answer cannot be kept").because(error))
}

fn broken(error: std::io::Error) -> ConnectError {
    ConnectError::protocol("the connection broke during the sign-in").because(error).hinting(HUNG_UP)
}

fn out_of_order() -> ConnectError {
    ConnectError::protocol("the server sent a message that has no place in a sign-in")
}
