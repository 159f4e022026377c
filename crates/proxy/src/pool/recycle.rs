//! Cleans a session that a client has left, for the next client.

use std::io;

use bytes::{Bytes, BytesMut};
use pgentra_wire::backend::{BackendMessage, ParameterStatus};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::upstream::Upstream;
use pgentra_session::kept::{Message, Unanswered, query};
use pgentra_session::tracker::keep;

/// Cleans a session (PostgreSQL documentation, "DISCARD").
const DISCARD: &str = "DISCARD ALL";
/// For a role with the setting `role` (`ALTER ROLE … SET role`): DISCARD ALL resets the session
/// authorization without applying that setting (PostgreSQL documentation, "SET ROLE").
const RESET: &str = "RESET ROLE";
/// DISCARD ALL drops temporary objects and keeps their schema: PREPARE TRANSACTION then behaves
/// differently from a new session.
const TEMPORARY: &str = "SELECT pg_catalog.pg_my_temp_schema()";
/// The row for "no temporary schema".
const NO_SCHEMA: &[u8] = b"\0\x01\0\0\0\x010";
/// Bound in bytes for the answers to these three queries.
const ANSWERS: usize = 256;

/// Why a session is not used again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResetError {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("the session has a temporary schema")]
    Temporary,
}

impl From<io::Error> for ResetError {
    fn from(error: io::Error) -> Self {
        Self::Unanswered(error.into())
    }
}

impl From<pgentra_wire::WireError> for ResetError {
    fn from(error: pgentra_wire::WireError) -> Self {
        Self::Unanswered(error.into())
    }
}

/// Resets a session to the state of a new one, as far as `DISCARD ALL` can.
pub(super) async fn clean(upstream: &mut Upstream, changed: Vec<ParameterStatus>) -> Result<(), ResetError> {
    let mut settings = upstream.settings()?;
    changed.into_iter().for_each(|setting| keep(&mut settings, setting));
    discard(&mut upstream.stream, &mut settings).await?;
    Ok(upstream.greet_with(settings)?)
}

async fn discard<S>(stream: &mut S, settings: &mut Vec<ParameterStatus>) -> Result<(), ResetError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&[DISCARD, RESET, TEMPORARY].map(query).concat()).await?;
    stream.flush().await?;
    let mut received = BytesMut::with_capacity(ANSWERS);
    let mut is_temporary = false;
    for tag in [&b"DISCARD ALL\0"[..], b"RESET\0", b"SELECT 1\0"] {
        if tag.starts_with(b"SELECT") {
            let (b'T', _) = answer(stream, &mut received, settings).await? else {
                return Err(Unanswered::AuthMessage.into());
            };
            let (b'D', row) = answer(stream, &mut received, settings).await? else {
                return Err(Unanswered::AuthMessage.into());
            };
            is_temporary = row != NO_SCHEMA;
        }
        for expected in [(b'C', tag), (b'Z', b"I")] {
            let (kind, body) = answer(stream, &mut received, settings).await?;
            if (kind, &*body) != expected {
                return Err(Unanswered::AuthMessage.into());
            }
        }
    }
    match received.is_empty() {
        true if is_temporary => Err(ResetError::Temporary),
        true => Ok(()),
        false => Err(Unanswered::AuthMessage.into()),
    }
}

/// The next message of the answer. Settings that are reported before it are kept; notices and
/// notifications are dropped, because they were for the previous client.
async fn answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    received: &mut BytesMut,
    settings: &mut Vec<ParameterStatus>,
) -> Result<(u8, Bytes), Unanswered> {
    loop {
        let message = Message::read(stream, received).await?;
        match message.tag {
            b'N' | b'A' => {}
            b'S' => match BackendMessage::decode(&mut BytesMut::from(&message.bytes[..]))? {
                Some(BackendMessage::ParameterStatus(setting)) => keep(settings, setting),
                _ => return Err(Unanswered::AuthMessage),
            },
            tag => return Ok((tag, message.body())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    const DISCARDED: &[u8] = b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05I";
    const WAS_RESET: &[u8] = b"C\0\0\0\x0aRESET\0Z\0\0\0\x05I";
    const UNUSED: &[u8] = b"T\0\0\0\x06\0\x01D\0\0\0\x0b\0\x01\0\0\0\x010C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    const USED: &[u8] = b"T\0\0\0\x06\0\x01D\0\0\0\x0b\0\x01\0\0\0\x017C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    const ZONE: &[u8] = b"S\0\0\0\x11TimeZone\0UTC\0";
    const NOTIFICATION: &[u8] = b"A\0\0\0\x0a\0\0\0\x01x\0";

    async fn after(answers: &[&[u8]]) -> Result<Vec<ParameterStatus>, ResetError> {
        let (mut near, mut far) = duplex(1024);
        far.write_all(&answers.concat()).await.unwrap();
        let server = async move {
            let expected = [DISCARD, RESET, TEMPORARY].map(query).concat();
            let mut asked = vec![0; expected.len()];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, expected);
        };
        let mut settings = Vec::new();
        let (discarded, ()) = tokio::join!(discard(&mut near, &mut settings), server);
        discarded.map(|()| settings)
    }

    #[tokio::test]
    async fn only_the_whole_answer_will_do() {
        assert!(after(&[DISCARDED, WAS_RESET, UNUSED]).await.unwrap().is_empty());
        let settings = after(&[NOTIFICATION, ZONE, DISCARDED, WAS_RESET, UNUSED]).await.unwrap();
        assert_eq!((&*settings[0].name, &*settings[0].value), (&b"TimeZone"[..], &b"UTC"[..]));
        for (about, answers) in [
            ("the server hangs up", &[][..]),
            ("in the middle", &[DISCARDED]),
            ("an error", &[b"E\0\0\0\x05\0Z\0\0\0\x05I", WAS_RESET, UNUSED]),
            (
                "another answer comes first",
                &[b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I", DISCARDED, WAS_RESET, UNUSED],
            ),
            ("a transaction is open", &[b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05T", WAS_RESET, UNUSED]),
            ("more than was asked for", &[DISCARDED, WAS_RESET, UNUSED, NOTIFICATION]),
            ("no row", &[DISCARDED, WAS_RESET, &UNUSED[..7], &UNUSED[19..]]),
            ("no setting", &[b"S\0\0\0\x05x", DISCARDED, WAS_RESET, UNUSED]),
            ("no message", &[b"C\0\0\0\x03"]),
            ("a message too long", &[b"N\x01\0\0\0"]),
        ] {
            assert!(matches!(after(answers).await, Err(ResetError::Unanswered(_))), "{about}");
        }
        assert!(matches!(after(&[DISCARDED, WAS_RESET, USED]).await, Err(ResetError::Temporary)));
    }
}
