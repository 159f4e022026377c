//! The client's side of a start-up, from the start-up packet to the first ReadyForQuery: which message may follow which,
//! and which answer a request allows.
//!
//! The caller moves the bytes. It sends what [`ClientLogin::start`] and the answers append, and gives what it receives to
//! [`ClientLogin::read`]. TLS comes before: see [`crate::startup::EncryptionAnswer`].

use std::fmt;

use bytes::BytesMut;

use crate::WireError;
use crate::backend::{Authentication, BackendMessage};
use crate::fields::Fields;
use crate::frontend::{self, SaslInitialResponse};
use crate::oauthbearer::{self, ClientMessage};
use crate::startup::StartupMessage;

/// Most messages of a server before ReadyForQuery. A server sends about fifteen settings; the limit ends a login with a
/// server that never gets ready.
const MESSAGES: usize = 1000;

/// One login. It begins with the start-up and is over with ReadyForQuery or an error.
#[derive(Debug)]
pub struct ClientLogin {
    state: LoginState,
    messages: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginState {
    /// The start-up was sent; the server has asked for nothing.
    Started,
    /// The server waits for an answer.
    Asked(AuthRequest),
    /// The answer was sent.
    Answered(AuthRequest),
    /// The server has sent its last part of a SASL exchange.
    Proven,
    Authenticated,
    Ready,
}

/// The kind of an authentication request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthRequest {
    CleartextPassword,
    /// A list of SASL mechanisms without OAUTHBEARER.
    Sasl,
    /// A list of SASL mechanisms with OAUTHBEARER among them.
    SaslOrBearer,
    SaslContinue,
    /// The server has the token: it lets the client in, or says why not in a SaslContinue.
    Bearer,
    /// The refusal of a token, which is dismissed before the server sends its ErrorResponse.
    BearerRefused,
    /// Any other: such a request can only be answered with [`ClientLogin::answer_raw`].
    Other,
}

/// Why a login cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientLoginError {
    /// The server's bytes are not the protocol, or an answer cannot be written in it.
    Wire(WireError),
    /// The server sent a message that has no place at this point of a login.
    OutOfOrder,
    /// The server sent a thousand messages without getting ready.
    TooManyMessages,
    /// The server sent an ErrorResponse.
    Refused(Fields),
    /// The answer is not one to the server's last request. Nothing was written.
    NotAsked,
}

impl fmt::Display for ClientLoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::OutOfOrder => f.write_str("the server sent a message that has no place in a login"),
            Self::TooManyMessages => write!(f, "the server sent {MESSAGES} messages and did not get ready"),
            Self::Refused(_) => f.write_str("the server refused"),
            Self::NotAsked => f.write_str("the server did not ask for this answer"),
        }
    }
}

impl std::error::Error for ClientLoginError {}

impl From<WireError> for ClientLoginError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl ClientLogin {
    /// Begins a login and appends the start-up packet.
    pub fn start(start: &StartupMessage, out: &mut BytesMut) -> Self {
        start.encode(out);
        Self { state: LoginState::Started, messages: 0 }
    }

    /// Cuts the next message off the front of `received`; `None` while it is not whole. It is an authentication message,
    /// a NoticeResponse, a ParameterStatus, a BackendKeyData, or ReadyForQuery, which is the last one.
    ///
    /// AuthenticationOk is accepted without a request, as from a server that trusts the connection; after a token; and
    /// after another SASL exchange only when the server has sent its last part of it, which the caller verifies.
    ///
    /// # Errors
    /// See [`ClientLoginError`]. The login is over then.
    pub fn read(&mut self, received: &mut BytesMut) -> Result<Option<BackendMessage>, ClientLoginError> {
        if self.messages >= MESSAGES {
            return Err(ClientLoginError::TooManyMessages);
        }
        let Some(message) = BackendMessage::decode(received)? else { return Ok(None) };
        self.messages += 1;
        self.state = match (self.state, &message) {
            (_, BackendMessage::ErrorResponse(fields)) => {
                return Err(ClientLoginError::Refused(fields.clone()));
            }
            (LoginState::Ready, _) => return Err(ClientLoginError::OutOfOrder),
            (state, BackendMessage::NoticeResponse(_)) => state,
            (state, BackendMessage::Authentication(authentication)) => after(state, authentication)?,
            (
                LoginState::Authenticated,
                BackendMessage::ParameterStatus(_) | BackendMessage::BackendKeyData(_),
            ) => LoginState::Authenticated,
            (LoginState::Authenticated, BackendMessage::ReadyForQuery(_)) => LoginState::Ready,
            _ => return Err(ClientLoginError::OutOfOrder),
        };
        Ok(Some(message))
    }

    /// Appends the answer to [`Authentication::CleartextPassword`]: a password, or a token. `out` should have room for it:
    /// a buffer that grows leaves a copy in freed memory.
    ///
    /// # Errors
    /// [`ClientLoginError::NotAsked`] after any other message; a password that does not fit.
    pub fn answer_password(&mut self, password: &[u8], out: &mut BytesMut) -> Result<(), ClientLoginError> {
        self.answer(&[AuthRequest::CleartextPassword], || frontend::encode_password(password, out))
    }

    /// Appends the answer to [`Authentication::Sasl`].
    ///
    /// # Errors
    /// [`ClientLoginError::NotAsked`] after any other message; a message that does not fit.
    pub fn answer_sasl(
        &mut self,
        initial: &SaslInitialResponse<'_>,
        out: &mut BytesMut,
    ) -> Result<(), ClientLoginError> {
        let to = [AuthRequest::Sasl, AuthRequest::SaslOrBearer];
        self.answer_as(&to, AuthRequest::Sasl, || initial.encode(out))
    }

    /// Appends a token as the answer to an [`Authentication::Sasl`] that offers OAUTHBEARER (RFC 7628). `out` should have
    /// room for it, as in [`ClientLogin::answer_password`]: [`oauthbearer::MECHANISM`] and the frame take some forty bytes.
    ///
    /// The server answers with AuthenticationOk, or with an [`Authentication::SaslContinue`] that holds an
    /// [`oauthbearer::BearerRefusal`]: see [`ClientLogin::dismiss_refusal`].
    ///
    /// # Errors
    /// [`ClientLoginError::NotAsked`] after any other message; a token that does not fit or has characters that no token
    /// has.
    pub fn answer_bearer(&mut self, token: &str, out: &mut BytesMut) -> Result<(), ClientLoginError> {
        self.answer_as(&[AuthRequest::SaslOrBearer], AuthRequest::Bearer, || {
            frontend::encode_oauthbearer(&ClientMessage::Token(token), out)
        })
    }

    /// Appends the answer to the refusal of a token, after which the server sends its ErrorResponse.
    ///
    /// # Errors
    /// [`ClientLoginError::NotAsked`] after any other message.
    pub fn dismiss_refusal(&mut self, out: &mut BytesMut) -> Result<(), ClientLoginError> {
        self.answer(&[AuthRequest::BearerRefused], || {
            frontend::encode_sasl_response(oauthbearer::DISMISSAL, out)
        })
    }

    /// Appends the answer to [`Authentication::SaslContinue`].
    ///
    /// # Errors
    /// [`ClientLoginError::NotAsked`] after any other message; a message that does not fit.
    pub fn answer_sasl_continue(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), ClientLoginError> {
        self.answer(&[AuthRequest::SaslContinue], || frontend::encode_sasl_response(data, out))
    }

    /// Appends the body of an answer that another program made, whatever the server asked for.
    ///
    /// # Errors
    /// [`ClientLoginError::NotAsked`] if the server waits for no answer; a message that does not fit.
    pub fn answer_raw(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), ClientLoginError> {
        let LoginState::Asked(request) = self.state else { return Err(ClientLoginError::NotAsked) };
        let answered = match request {
            AuthRequest::SaslOrBearer if chooses_bearer(body) => AuthRequest::Bearer,
            AuthRequest::SaslOrBearer => AuthRequest::Sasl,
            other => other,
        };
        self.answer_as(&[request], answered, || frontend::encode_sasl_response(body, out))
    }

    /// Whether the server waits for an answer.
    pub fn is_asked(&self) -> bool {
        matches!(self.state, LoginState::Asked(_))
    }

    fn answer(
        &mut self,
        to: &[AuthRequest],
        encode: impl FnOnce() -> Result<(), WireError>,
    ) -> Result<(), ClientLoginError> {
        match self.state {
            LoginState::Asked(request) => self.answer_as(to, request, encode),
            _ => Err(ClientLoginError::NotAsked),
        }
    }

    /// The same, and the exchange goes on as `answered`.
    fn answer_as(
        &mut self,
        to: &[AuthRequest],
        answered: AuthRequest,
        encode: impl FnOnce() -> Result<(), WireError>,
    ) -> Result<(), ClientLoginError> {
        match self.state {
            LoginState::Asked(request) if to.contains(&request) => {
                encode()?;
                self.state = LoginState::Answered(answered);
                Ok(())
            }
            _ => Err(ClientLoginError::NotAsked),
        }
    }
}

/// Whether the body of a first SASL message names OAUTHBEARER.
fn chooses_bearer(body: &[u8]) -> bool {
    body.strip_prefix(oauthbearer::MECHANISM.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

/// The state after an authentication message.
fn after(state: LoginState, message: &Authentication) -> Result<LoginState, ClientLoginError> {
    let in_sasl = matches!(state, LoginState::Answered(AuthRequest::Sasl | AuthRequest::SaslContinue));
    match (message, state) {
        (Authentication::Ok, LoginState::Started | LoginState::Proven) => Ok(LoginState::Authenticated),
        // After the refusal of a token comes an ErrorResponse and nothing else.
        (_, LoginState::Answered(AuthRequest::BearerRefused)) => Err(ClientLoginError::OutOfOrder),
        (Authentication::SaslContinue(_), LoginState::Answered(AuthRequest::Bearer)) => {
            Ok(LoginState::Asked(AuthRequest::BearerRefused))
        }
        (Authentication::Ok, LoginState::Answered(_)) if !in_sasl => Ok(LoginState::Authenticated),
        (Authentication::SaslContinue(_), _) if in_sasl => Ok(LoginState::Asked(AuthRequest::SaslContinue)),
        (Authentication::SaslFinal(_), _) if in_sasl => Ok(LoginState::Proven),
        (Authentication::GssContinue(_), LoginState::Answered(AuthRequest::Other)) => {
            Ok(LoginState::Asked(AuthRequest::Other))
        }
        (Authentication::CleartextPassword, LoginState::Started) => {
            Ok(LoginState::Asked(AuthRequest::CleartextPassword))
        }
        (Authentication::Sasl(mechanisms), LoginState::Started) => {
            let is_bearer = mechanisms.offers(oauthbearer::MECHANISM);
            Ok(LoginState::Asked(if is_bearer { AuthRequest::SaslOrBearer } else { AuthRequest::Sasl }))
        }
        // Also the middle of an exchange that was not begun, so that the caller can say what the server asked for.
        (_, LoginState::Started) => Ok(LoginState::Asked(AuthRequest::Other)),
        _ => Err(ClientLoginError::OutOfOrder),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backend::{BackendKeyData, Mechanisms, ParameterStatus, TransactionStatus};
    use crate::fields::Severity;
    use crate::startup::{CancelKey, ProtocolVersion};

    const PASSWORD: &[u8] = b"a password";

    fn start() -> ClientLogin {
        let start = StartupMessage::new(ProtocolVersion::V3_0, "me").unwrap();
        let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
        let login = ClientLogin::start(&start, &mut out);
        start.encode(&mut expected);
        assert_eq!(out, expected);
        login
    }

    fn authentication(message: Authentication) -> BackendMessage {
        BackendMessage::Authentication(message)
    }

    fn sasl() -> BackendMessage {
        authentication(Authentication::Sasl(Mechanisms::new(["SCRAM-SHA-256"]).unwrap()))
    }

    fn notice() -> BackendMessage {
        BackendMessage::NoticeResponse(Fields::new(Severity::Notice, "00000", "a notice"))
    }

    fn key() -> BackendMessage {
        let key = CancelKey::new(Bytes::from_static(b"abcd")).unwrap();
        BackendMessage::BackendKeyData(BackendKeyData { process_id: 1, key })
    }

    fn setting() -> BackendMessage {
        let (name, value) = (Bytes::from_static(b"TimeZone"), Bytes::from_static(b"UTC"));
        BackendMessage::ParameterStatus(ParameterStatus { name, value })
    }

    fn ready() -> BackendMessage {
        BackendMessage::ReadyForQuery(TransactionStatus::Idle)
    }

    const OK: Authentication = Authentication::Ok;
    fn bearer() -> BackendMessage {
        authentication(Authentication::Sasl(Mechanisms::new(["SCRAM-SHA-256", "OAUTHBEARER"]).unwrap()))
    }

    const CLEARTEXT: Authentication = Authentication::CleartextPassword;
    const CONTINUE: Authentication = Authentication::SaslContinue(Bytes::from_static(b"r=a"));
    const FINAL: Authentication = Authentication::SaslFinal(Bytes::from_static(b"v=a"));

    /// Reads these messages and answers each request as it has to be answered.
    fn read(login: &mut ClientLogin, messages: &[BackendMessage]) -> Result<(), ClientLoginError> {
        for message in messages {
            let mut received = BytesMut::new();
            message.encode(&mut received).unwrap();
            assert_eq!(login.read(&mut received)?.as_ref(), Some(message));
            let mut out = BytesMut::new();
            match message {
                BackendMessage::Authentication(Authentication::CleartextPassword) => {
                    login.answer_password(PASSWORD, &mut out)?;
                }
                BackendMessage::Authentication(Authentication::Sasl(_)) => {
                    let mechanism = b"SCRAM-SHA-256";
                    login.answer_sasl(&SaslInitialResponse { mechanism, data: Some(b"n,,") }, &mut out)?;
                }
                BackendMessage::Authentication(Authentication::SaslContinue(_)) => {
                    // In the first message it is no request that this answers.
                    let answered = login.answer_sasl_continue(b"c=biws", &mut out);
                    assert_eq!(answered.is_err(), login.is_asked());
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[test]
    fn a_login_ends_with_ready_for_query() {
        for (about, requests) in [
            ("trust", &[][..]),
            ("a password", &[authentication(CLEARTEXT)]),
            ("SCRAM", &[sasl(), authentication(CONTINUE), authentication(FINAL)]),
            ("with notices", &[notice(), authentication(CLEARTEXT), notice()]),
        ] {
            let greeting = [authentication(OK), setting(), notice(), key(), setting(), ready()];
            let mut login = start();
            assert_eq!(read(&mut login, &[requests, &greeting].concat()), Ok(()), "{about}");
            assert_eq!(
                read(&mut login, &[setting()]),
                Err(ClientLoginError::OutOfOrder),
                "{about}: it is over"
            );
        }
    }

    #[test]
    fn a_message_in_the_wrong_place_ends_the_login() {
        let ok = || authentication(OK);
        for (about, messages) in [
            ("ready at once", &[ready()][..]),
            ("a setting at once", &[setting()]),
            ("a key before AuthenticationOk", &[authentication(CLEARTEXT), key()]),
            ("two passwords", &[authentication(CLEARTEXT), authentication(CLEARTEXT)]),
            ("SASL after a password", &[authentication(CLEARTEXT), sasl()]),
            ("SASL in its middle, twice", &[authentication(CONTINUE), authentication(CONTINUE)]),
            ("SASL at its end", &[authentication(FINAL), ok()]),
            ("no proof of the server", &[sasl(), ok()]),
            ("half a proof", &[sasl(), authentication(CONTINUE), ok()]),
            ("more after the proof", &[sasl(), authentication(FINAL), authentication(CONTINUE)]),
            ("a request after AuthenticationOk", &[ok(), authentication(CLEARTEXT)]),
            ("twice AuthenticationOk", &[ok(), ok()]),
        ] {
            let mut login = start();
            let (last, before) = messages.split_last().unwrap();
            assert_eq!(read(&mut login, before), Ok(()), "{about}");
            let ended = read(&mut login, std::slice::from_ref(last));
            assert_eq!(ended, Err(ClientLoginError::OutOfOrder), "{about}");
        }
    }

    /// Invariant 1: a password, and so a token, is written only as the answer to
    /// AuthenticationCleartextPassword, and once.
    #[test]
    fn a_password_answers_one_request_only() {
        let salt = *b"salt";
        for before in [
            None,
            Some(authentication(Authentication::Md5Password { salt })),
            Some(authentication(Authentication::Gss)),
            Some(sasl()),
            Some(authentication(OK)),
        ] {
            let mut login = start();
            if let Some(message) = &before {
                let mut received = BytesMut::new();
                message.encode(&mut received).unwrap();
                login.read(&mut received).unwrap();
            }
            let mut out = BytesMut::new();
            let answered = login.answer_password(PASSWORD, &mut out);
            assert_eq!(answered, Err(ClientLoginError::NotAsked), "{before:?}");
            assert!(out.is_empty(), "{before:?}");
        }
        let mut login = start();
        read(&mut login, &[authentication(CLEARTEXT)]).unwrap();
        let mut out = BytesMut::new();
        assert_eq!(login.answer_password(PASSWORD, &mut out), Err(ClientLoginError::NotAsked));
        assert!(out.is_empty());
    }

    /// Gives the login one message of the server.
    fn hear(login: &mut ClientLogin, message: &BackendMessage) -> Result<(), ClientLoginError> {
        let mut received = BytesMut::new();
        message.encode(&mut received).unwrap();
        login.read(&mut received).map(|read| assert_eq!(read.as_ref(), Some(message)))
    }

    /// Invariant 1: a token is written as the answer to a list of mechanisms with OAUTHBEARER in it, and to no other
    /// request, and once.
    #[test]
    fn a_bearer_token_answers_one_request_only() {
        let salt = *b"salt";
        for before in [
            None,
            Some(authentication(CLEARTEXT)),
            Some(authentication(Authentication::Md5Password { salt })),
            Some(authentication(Authentication::Gss)),
            Some(authentication(CONTINUE)),
            Some(sasl()),
            Some(authentication(OK)),
        ] {
            let mut login = start();
            before.iter().for_each(|message| hear(&mut login, message).unwrap());
            let mut out = BytesMut::new();
            assert_eq!(login.answer_bearer("a.b.c", &mut out), Err(ClientLoginError::NotAsked), "{before:?}");
            assert!(out.is_empty(), "{before:?}");
        }
        let mut login = start();
        hear(&mut login, &bearer()).unwrap();
        let mut out = BytesMut::new();
        assert!(matches!(login.answer_bearer("a b", &mut out), Err(ClientLoginError::Wire(_))));
        assert_eq!(login.answer_password(PASSWORD, &mut out), Err(ClientLoginError::NotAsked));
        assert!(out.is_empty());
        login.answer_bearer("a.b.c", &mut out).unwrap();
        assert_eq!(&out[..], b"p\0\0\0\x2bOAUTHBEARER\0\0\0\0\x17n,,\x01auth=Bearer a.b.c\x01\x01");
        out.clear();
        assert_eq!(login.answer_bearer("a.b.c", &mut out), Err(ClientLoginError::NotAsked));
        assert_eq!(login.dismiss_refusal(&mut out), Err(ClientLoginError::NotAsked));
        assert!(out.is_empty());
        assert_eq!(hear(&mut login, &authentication(OK)), Ok(()), "a token needs no proof of the server");
    }

    #[test]
    fn a_refused_bearer_token_ends_with_an_error() {
        let refuse = || {
            let mut login = start();
            let mut out = BytesMut::new();
            hear(&mut login, &bearer()).unwrap();
            login.answer_bearer("a.b.c", &mut out).unwrap();
            hear(&mut login, &authentication(CONTINUE)).unwrap();
            out.clear();
            login.dismiss_refusal(&mut out).unwrap();
            assert_eq!(&out[..], b"p\0\0\0\x05\x01");
            login
        };
        for message in [authentication(OK), authentication(CONTINUE), authentication(FINAL), bearer()] {
            assert_eq!(hear(&mut refuse(), &message), Err(ClientLoginError::OutOfOrder), "{message:?}");
        }
        let fields = Fields::new(Severity::Fatal, "28000", "no");
        let error = BackendMessage::ErrorResponse(fields.clone());
        assert_eq!(hear(&mut refuse(), &error), Err(ClientLoginError::Refused(fields)));
    }

    #[test]
    fn another_program_chooses_the_mechanism() {
        let mut token = BytesMut::new();
        frontend::encode_oauthbearer(&ClientMessage::Token("a.b.c"), &mut token).unwrap();
        for (body, then) in [
            (&token[5..], Ok(())),
            (b"SCRAM-SHA-256\0\0\0\0\x03n,,", Err(ClientLoginError::OutOfOrder)),
            (b"OAUTHBEARERS\0\0\0\0\0", Err(ClientLoginError::OutOfOrder)),
        ] {
            let mut login = start();
            hear(&mut login, &bearer()).unwrap();
            login.answer_raw(body, &mut BytesMut::new()).unwrap();
            assert_eq!(hear(&mut login, &authentication(OK)), then, "{body:?}");
        }
    }

    #[test]
    fn answers_of_another_program_are_written_when_the_server_waits() {
        let salt = *b"salt";
        let md5 = authentication(Authentication::Md5Password { salt });
        for request in [md5, authentication(CLEARTEXT), sasl(), bearer(), authentication(Authentication::Gss)]
        {
            let mut login = start();
            let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
            assert_eq!(login.answer_raw(b"early\0", &mut out), Err(ClientLoginError::NotAsked));
            request.encode(&mut received).unwrap();
            login.read(&mut received).unwrap();
            assert!(login.is_asked());
            assert_eq!(login.answer_raw(b"digest\0", &mut out), Ok(()));
            assert_eq!(&out[..], b"p\0\0\0\x0bdigest\0", "{request:?}");
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_can_be_given_again() {
        let mut login = start();
        let mut received = BytesMut::new();
        authentication(CLEARTEXT).encode(&mut received).unwrap();
        login.read(&mut received).unwrap();
        let mut out = BytesMut::new();
        let long = vec![b'x'; crate::limits::PASSWORD + 1];
        assert!(matches!(login.answer_password(&long, &mut out), Err(ClientLoginError::Wire(_))));
        assert!(out.is_empty() && login.is_asked());
        assert_eq!(login.answer_password(PASSWORD, &mut out), Ok(()));
    }

    #[test]
    fn an_error_ends_the_login_wherever_it_comes() {
        let fields = Fields::new(Severity::Fatal, "28P01", "no");
        let error = BackendMessage::ErrorResponse(fields.clone());
        for before in
            [&[][..], &[authentication(CLEARTEXT)], &[authentication(OK)], &[authentication(OK), setting()]]
        {
            let mut login = start();
            read(&mut login, before).unwrap();
            let ended = read(&mut login, std::slice::from_ref(&error));
            assert_eq!(ended, Err(ClientLoginError::Refused(fields.clone())));
        }
    }

    #[test]
    fn a_server_that_never_gets_ready_is_left() {
        let mut login = start();
        read(&mut login, &[authentication(OK)]).unwrap();
        read(&mut login, &vec![setting(); MESSAGES - 1]).unwrap();
        assert_eq!(read(&mut login, &[ready()]), Err(ClientLoginError::TooManyMessages));
    }

    #[test]
    fn half_a_message_is_none_and_stays() {
        let mut login = start();
        let mut received = BytesMut::from(&b"R\0\0\0\x08\0\0\0"[..]);
        assert_eq!(login.read(&mut received), Ok(None));
        received.extend_from_slice(b"\0rest");
        assert_eq!(login.read(&mut received), Ok(Some(authentication(OK))));
        assert_eq!(&received[..], b"rest");
        let mut wrong = BytesMut::from(&b"R\0\0\0\x03"[..]);
        assert!(matches!(login.read(&mut wrong), Err(ClientLoginError::Wire(_))));
    }
}
