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
use super::upstream::{DefaultRole, Upstream};
use crate::session::position::keep;

/// The query that cleans a session (PostgreSQL documentation, "DISCARD").
const DISCARD: &[u8] = b"Q\0\0\0\x10DISCARD ALL\0";
/// For a role that is set for the role (`ALTER ROLE … SET role`): DISCARD ALL sets the session's authorization back and
/// leaves that out (PostgreSQL documentation, "SET ROLE").
const RESET: &[u8] = b"Q\0\0\0\x0fRESET ROLE\0";
/// Whether there is such a role. It is settled when a session begins, so it is asked once.
const SHOW: &[u8] = b"Q\0\0\0\x0eSHOW role\0";
/// The row that says there is none.
const NO_ROLE: &[u8] = b"\0\x01\0\0\0\x04none";
/// More than the answers to these three queries take.
const ANSWERS: usize = 256;
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
    discard(&mut upstream.stream, &mut settings, &mut upstream.default_role).await?;
    Ok(upstream.greet_with(settings)?)
}

async fn discard<S>(
    stream: &mut S,
    settings: &mut Vec<ParameterStatus>,
    default_role: &mut DefaultRole,
) -> Result<(), Unclean>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let queries = match default_role {
        DefaultRole::Unknown => &[DISCARD, RESET, SHOW][..],
        DefaultRole::Set => &[DISCARD, RESET],
        DefaultRole::None => &[DISCARD],
    };
    stream.write_all(&queries.concat()).await?;
    stream.flush().await?;
    let mut received = BytesMut::with_capacity(ANSWERS);
    for query in queries {
        let tag: &[u8] = match *query {
            DISCARD => b"DISCARD ALL\0",
            RESET => b"RESET\0",
            _ => {
                let (b'T', _) = answer(stream, &mut received, settings).await? else {
                    return Err(Unclean::Answer);
                };
                let (b'D', row) = answer(stream, &mut received, settings).await? else {
                    return Err(Unclean::Answer);
                };
                *default_role = if row == NO_ROLE { DefaultRole::None } else { DefaultRole::Set };
                b"SHOW\0"
            }
        };
        for expected in [(b'C', tag), (b'Z', b"I")] {
            let (kind, body) = answer(stream, &mut received, settings).await?;
            if (kind, &*body) != expected {
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
    const RESETTED: &[u8] = b"C\0\0\0\x0aRESET\0Z\0\0\0\x05I";
    const SHOWN: &[u8] = b"T\0\0\0\x06\0\x01D\0\0\0\x0e\0\x01\0\0\0\x04noneC\0\0\0\x09SHOW\0Z\0\0\0\x05I";
    const SHOWN_ROLE: &[u8] = b"T\0\0\0\x06\0\x01D\0\0\0\x0d\0\x01\0\0\0\x03appC\0\0\0\x09SHOW\0Z\0\0\0\x05I";
    const ZONE: &[u8] = b"S\0\0\0\x11TimeZone\0UTC\0";
    const NOTIFICATION: &[u8] = b"A\0\0\0\x0a\0\0\0\x01x\0";

    async fn after(
        mut role: DefaultRole,
        queries: &[&[u8]],
        answers: &[&[u8]],
    ) -> Result<(Vec<ParameterStatus>, DefaultRole), Unclean> {
        let (mut near, mut far) = duplex(1024);
        far.write_all(&answers.concat()).await.unwrap();
        let server = async move {
            let mut asked = vec![0; queries.concat().len()];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, queries.concat());
        };
        let mut settings = Vec::new();
        let (discarded, ()) = tokio::join!(discard(&mut near, &mut settings, &mut role), server);
        discarded.map(|()| (settings, role))
    }

    #[tokio::test]
    async fn only_the_whole_answer_will_do() {
        let two = |answers| after(DefaultRole::Set, &[DISCARD, RESET], answers);
        assert!(two(&[DISCARDED, RESETTED]).await.unwrap().0.is_empty());
        let (settings, _) = two(&[NOTIFICATION, ZONE, DISCARDED, RESETTED]).await.unwrap();
        assert_eq!((&*settings[0].name, &*settings[0].value), (&b"TimeZone"[..], &b"UTC"[..]));
        for (about, answers) in [
            ("the server hangs up", &[][..]),
            ("in the middle", &[DISCARDED]),
            ("an error", &[b"E\0\0\0\x05\0Z\0\0\0\x05I", RESETTED]),
            ("another answer comes first", &[b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I", DISCARDED, RESETTED]),
            ("a transaction is open", &[b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05T", RESETTED]),
            ("more than was asked for", &[DISCARDED, RESETTED, NOTIFICATION]),
            ("no setting", &[b"S\0\0\0\x05x", DISCARDED, RESETTED]),
            ("no message", &[b"C\0\0\0\x03"]),
            ("a message too long", &[b"N\x01\0\0\0"]),
        ] {
            assert!(two(answers).await.is_err(), "{about}");
        }
    }

    #[tokio::test]
    async fn the_role_that_a_session_begins_in_is_asked_for_once() {
        use DefaultRole::{None, Set, Unknown};
        let all = [DISCARD, RESET, SHOW];
        for (shown, role) in [(SHOWN, None), (SHOWN_ROLE, Set)] {
            assert_eq!(after(Unknown, &all, &[DISCARDED, RESETTED, shown]).await.unwrap().1, role);
        }
        assert_eq!(after(None, &[DISCARD], &[DISCARDED]).await.unwrap().1, None);
        assert!(after(None, &[DISCARD], &[DISCARDED, RESETTED]).await.is_err());
        for shown in [&SHOWN[..7], &SHOWN[7..], DISCARDED, b"E\0\0\0\x05\0Z\0\0\0\x05I"] {
            assert!(after(Unknown, &all, &[DISCARDED, RESETTED, shown]).await.is_err());
        }
    }
}
