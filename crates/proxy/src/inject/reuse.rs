//! What a client leaves behind becomes a session for the next one.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pgentra_wire::WireError;
use pgentra_wire::backend::{BackendMessage, ParameterStatus};
use pgentra_wire::frame::Header;
use pgentra_wire::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::Injector;
use super::login::Session;
use super::upstream::Upstream;
use crate::session::position::keep;

/// Two queries at once. The second is for a role that is set for the role (`ALTER ROLE … SET role`): DISCARD ALL sets the
/// session's authorization back and leaves that out (PostgreSQL documentation, "DISCARD", "SET ROLE").
const CLEAN: &[u8] = b"Q\0\0\0\x10DISCARD ALL\0Q\0\0\0\x0fRESET ROLE\0";
/// What the server answers to them when all went well.
const TAGS: [&[u8]; 2] = [b"DISCARD ALL\0", b"RESET\0"];
/// The longest that cleaning may take. Dropping a hundred temporary tables takes some tenths of a second.
const CLEANING: Duration = Duration::from_secs(5);
/// How long a session is used again and again: server processes grow with what they remember of tables and plans. As
/// PgBouncer's `server_lifetime`.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// Why a session is not used again.
#[derive(Debug, thiserror::Error)]
enum Unclean {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the server does not speak the protocol")]
    Wire(#[from] WireError),
    #[error("the server's answer was not the expected one")]
    Answer,
    #[error("it took too long")]
    Slow,
}

impl Injector {
    /// Takes back a session at rest that its client has left. `changed` are the settings that were reported during it.
    /// Whatever is not as it should be ends it.
    pub(super) async fn take_back(&self, session: Session, changed: Vec<ParameterStatus>) {
        let Session { mut upstream, registration, start, .. } = session;
        let Some(returning) = start.and_then(|start| self.stock.returning(&start)) else {
            return;
        };
        // From here on the client's key is worth nothing. A request that found it before would hit the next client.
        drop(registration);
        upstream.cancel = match upstream.cancel.take() {
            None => None,
            Some(cancel) => match cancel.unused() {
                Some(cancel) => Some(cancel),
                None => return,
            },
        };
        if upstream.opened.elapsed() >= LIFE || upstream.token_expires_on <= self.connector.now() {
            return;
        }
        let cleaned = tokio::time::timeout(CLEANING, clean(&mut upstream, changed)).await;
        match cleaned.unwrap_or(Err(Unclean::Slow)) {
            Ok(()) => {
                self.observer.supply().reused.inc();
                returning.arrived(upstream, Instant::now());
            }
            Err(error) => {
                let error = crate::session::end::chain(&error);
                tracing::debug!(error, "a session is not used again");
            }
        }
    }
}

/// Makes a session as if nobody had used it, as far as `DISCARD ALL` can.
async fn clean(upstream: &mut Upstream, changed: Vec<ParameterStatus>) -> Result<(), Unclean> {
    let mut settings = upstream.settings()?;
    changed.into_iter().for_each(|setting| keep(&mut settings, setting));
    discard(&mut upstream.stream, &mut settings).await?;
    Ok(upstream.greet_with(settings)?)
}

async fn discard<S>(stream: &mut S, settings: &mut Vec<ParameterStatus>) -> Result<(), Unclean>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(CLEAN).await?;
    stream.flush().await?;
    let mut received = BytesMut::new();
    for tag in TAGS {
        for (expected, body) in [(b'C', tag), (b'Z', b"I")] {
            if answer(stream, &mut received, settings).await? != (expected, Bytes::from_static(body)) {
                return Err(Unclean::Answer);
            }
        }
    }
    if received.is_empty() { Ok(()) } else { Err(Unclean::Answer) }
}

/// The next message that is an answer. Settings that are reported before it are kept; what was for the client that left
/// is not.
async fn answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    received: &mut BytesMut,
    settings: &mut Vec<ParameterStatus>,
) -> Result<(u8, Bytes), Unclean> {
    loop {
        let header = Header::peek(received)?;
        match header {
            Some(header) if header.body > limits::BACKEND_MESSAGE => return Err(Unclean::Answer),
            Some(header) if received.len() >= Header::SIZE + header.body => {
                let mut message = received.split_to(Header::SIZE + header.body);
                match header.tag {
                    b'N' | b'A' => {}
                    b'S' => match BackendMessage::decode(&mut message)? {
                        Some(BackendMessage::ParameterStatus(setting)) => keep(settings, setting),
                        _ => return Err(Unclean::Answer),
                    },
                    tag => {
                        message.advance(Header::SIZE);
                        return Ok((tag, message.freeze()));
                    }
                }
            }
            _ => {
                if stream.read_buf(received).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const DISCARDED: &[u8] = b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05I";
    const RESET: &[u8] = b"C\0\0\0\x0aRESET\0Z\0\0\0\x05I";
    const ZONE: &[u8] = b"S\0\0\0\x11TimeZone\0UTC\0";
    const NOTIFICATION: &[u8] = b"A\0\0\0\x0a\0\0\0\x01x\0";

    async fn after(answers: &[&[u8]]) -> Result<Vec<ParameterStatus>, Unclean> {
        let (mut near, mut far) = duplex(1024);
        far.write_all(&answers.concat()).await.unwrap();
        let server = async move {
            let mut asked = [0; CLEAN.len()];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, CLEAN);
        };
        let mut settings = Vec::new();
        let (discarded, ()) = tokio::join!(discard(&mut near, &mut settings), server);
        discarded.map(|()| settings)
    }

    #[tokio::test]
    async fn only_the_whole_answer_will_do() {
        assert!(after(&[DISCARDED, RESET]).await.unwrap().is_empty());
        let settings = after(&[NOTIFICATION, ZONE, DISCARDED, RESET]).await.unwrap();
        assert_eq!((&*settings[0].name, &*settings[0].value), (&b"TimeZone"[..], &b"UTC"[..]));
        for (about, answers) in [
            ("the server hangs up", &[][..]),
            ("in the middle", &[DISCARDED]),
            ("an error", &[b"E\0\0\0\x05\0Z\0\0\0\x05I", RESET]),
            ("another answer comes first", &[b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I", DISCARDED, RESET]),
            ("a transaction is open", &[b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05T", RESET]),
            ("more than was asked for", &[DISCARDED, RESET, NOTIFICATION]),
            ("no setting", &[b"S\0\0\0\x05x", DISCARDED, RESET]),
            ("no message", &[b"C\0\0\0\x03"]),
            ("a message too long", &[b"N\x01\0\0\0"]),
        ] {
            assert!(after(answers).await.is_err(), "{about}");
        }
    }
}
