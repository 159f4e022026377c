//! Whatever a server sends during a login: no panic, the same in pieces as whole, and the password leaves only as the
//! answer to AuthenticationCleartextPassword, the token only as the answer to a list with OAUTHBEARER in it.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::client_login::{ClientLogin, ClientLoginError};
use pgentra_wire::frontend::SaslInitialResponse;
use pgentra_wire::oauthbearer::MECHANISM;
use pgentra_wire::startup::{ProtocolVersion, StartupMessage};

const PASSWORD: &[u8] = b"the password of the fuzz target";
const TOKEN: &str = "the-token-of-the-fuzz-target";

fuzz_target!(|data: &[u8]| {
    let whole = log_in(data, data.len().max(1));
    assert_eq!(whole, log_in(data, 3));
    let (messages, sent, _) = whole;
    let asked = messages
        .iter()
        .filter(|message| {
            matches!(message, BackendMessage::Authentication(Authentication::CleartextPassword))
        })
        .count();
    let given = sent.windows(PASSWORD.len()).filter(|window| *window == PASSWORD).count();
    assert_eq!(asked, given);
    assert!(given <= 1);
    let offered = messages
        .iter()
        .filter(|message| {
            matches!(message, BackendMessage::Authentication(Authentication::Sasl(mechanisms)) if mechanisms.offers(MECHANISM))
        })
        .count();
    let given = sent.windows(TOKEN.len()).filter(|window| *window == TOKEN.as_bytes()).count();
    assert_eq!(offered, given);
    assert!(given <= 1);
    let readies = messages.iter().position(|message| matches!(message, BackendMessage::ReadyForQuery(_)));
    assert!(readies.is_none_or(|at| at + 1 == messages.len()), "ReadyForQuery is the last message");
});

/// The messages, what was sent to the server, and how it ended.
fn log_in(data: &[u8], piece: usize) -> (Vec<BackendMessage>, BytesMut, Result<(), ClientLoginError>) {
    let start = StartupMessage::new(ProtocolVersion::V3_0, "me").expect("a valid start-up");
    let (mut received, mut sent, mut messages) = (BytesMut::new(), BytesMut::new(), Vec::new());
    let mut login = ClientLogin::start(&start, &mut sent);
    for piece in data.chunks(piece) {
        received.extend_from_slice(piece);
        loop {
            let message = match login.read(&mut received) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return (messages, sent, Err(error)),
            };
            let answered = match &message {
                BackendMessage::Authentication(Authentication::CleartextPassword) => {
                    login.answer_password(PASSWORD, &mut sent)
                }
                BackendMessage::Authentication(Authentication::Sasl(mechanisms))
                    if mechanisms.offers(MECHANISM) =>
                {
                    assert!(login.answer_password(PASSWORD, &mut sent).is_err());
                    login.answer_bearer(TOKEN, &mut sent)
                }
                BackendMessage::Authentication(Authentication::Sasl(_)) => {
                    assert!(login.answer_password(PASSWORD, &mut sent).is_err());
                    assert!(login.answer_bearer(TOKEN, &mut sent).is_err());
                    let mechanism = b"SCRAM-SHA-256";
                    login.answer_sasl(&SaslInitialResponse { mechanism, data: Some(b"n,,n=,r=a") }, &mut sent)
                }
                BackendMessage::Authentication(Authentication::SaslContinue(_)) => {
                    match login.answer_sasl_continue(b"c=biws,r=a", &mut sent) {
                        // The server began in the middle of an exchange, or refuses the token.
                        Err(ClientLoginError::NotAsked) => match login.dismiss_refusal(&mut sent) {
                            Err(ClientLoginError::NotAsked) => Ok(()),
                            answered => answered,
                        },
                        answered => answered,
                    }
                }
                _ => {
                    assert_eq!(login.answer_password(PASSWORD, &mut sent), Err(ClientLoginError::NotAsked));
                    assert_eq!(login.answer_bearer(TOKEN, &mut sent), Err(ClientLoginError::NotAsked));
                    Ok(())
                }
            };
            answered.expect("the answer fits the request");
            messages.push(message);
        }
    }
    (messages, sent, Ok(()))
}
