//! How a client is asked for its token: as a cleartext password, or by the SASL mechanism OAUTHBEARER.
//!
//! A server asks for one method, before the client has said which it knows: libpq 18 that is to sign in with OAuth refuses
//! a request for a password, and every driver without OAUTHBEARER refuses a list of mechanisms with nothing else in it. So
//! the client says it in its start-up, and the configuration says it for those that cannot.

use bytes::BytesMut;
use pgentra_session::auth_message::AuthMessage;
use pgentra_session::client::Client;
use pgentra_session::login_error::{LoginError, fatal, sqlstate};
use pgentra_wire::backend::{Authentication, BackendMessage, Mechanisms};
use pgentra_wire::fields::Fields;
use pgentra_wire::oauthbearer::{BearerRefusal, ClientMessage, DISMISSAL, MECHANISM};
use secrecy::SecretString;

use crate::ask_method::AskMethod;
use crate::{Oauth, refusal};

/// What a client answered.
pub(crate) enum TokenAnswer {
    /// A token, to be verified. It is overwritten on drop.
    Token(SecretString),
    /// No token, or a text that is none: the client gets this error.
    Refused(Fields),
}

/// Asks the client, and waits for its answer.
pub(crate) async fn ask(client: &mut Client, how: AskMethod, user: &str) -> Result<TokenAnswer, LoginError> {
    match how {
        AskMethod::Password => {
            client.send(&BackendMessage::Authentication(Authentication::CleartextPassword)).await?;
            let answer = AuthMessage::read(client).await?;
            Ok(match std::str::from_utf8(answer.password()?) {
                Ok(token) => TokenAnswer::Token(token.into()),
                Err(_) => TokenAnswer::Refused(refusal::not_a_token()),
            })
        }
        AskMethod::Oauth => {
            let offer = Authentication::Sasl(Mechanisms::new([MECHANISM])?);
            client.send(&BackendMessage::Authentication(offer)).await?;
            let answer = AuthMessage::read(client).await?;
            let initial = answer.sasl_initial()?;
            if initial.mechanism != MECHANISM.as_bytes() {
                let message = "client selected an invalid SASL authentication mechanism";
                return Err(fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
            }
            match initial.data {
                Some(data) => read_oauthbearer(data, user),
                // RFC 4422 section 5.1: a client that sends nothing first gets an empty challenge.
                None => {
                    client
                        .send(&BackendMessage::Authentication(Authentication::SaslContinue("".into())))
                        .await?;
                    read_oauthbearer(AuthMessage::read(client).await?.body(), user)
                }
            }
        }
    }
}

fn read_oauthbearer(data: &[u8], user: &str) -> Result<TokenAnswer, LoginError> {
    Ok(match ClientMessage::decode(data)? {
        ClientMessage::Token(token) => TokenAnswer::Token(token.into()),
        ClientMessage::Discovery => TokenAnswer::Refused(refusal::no_bearer(user)),
    })
}

/// Tells the client that there is no session, in the words of the mechanism that it was asked by: the ErrorResponse itself
/// is the caller's to send.
pub(crate) async fn refuse(client: &mut Client, how: AskMethod, oauth: &Oauth) -> Result<(), LoginError> {
    if how == AskMethod::Password {
        return Ok(());
    }
    let mut json = BytesMut::new();
    let said = BearerRefusal {
        status: "invalid_token".into(),
        openid_configuration: Some(oauth.openid_configuration().into()),
        scope: Some(oauth.scope.as_str().into()),
    };
    said.encode(&mut json);
    let said = Authentication::SaslContinue(json.freeze());
    client.send(&BackendMessage::Authentication(said)).await?;
    match AuthMessage::read(client).await?.body() {
        DISMISSAL => Ok(()),
        _ => {
            let message = "malformed OAUTHBEARER message";
            let detail = "The client did not answer the refusal of its token with the byte 0x01.";
            Err(fatal(sqlstate::PROTOCOL_VIOLATION, message).with_detail(detail).into())
        }
    }
}
