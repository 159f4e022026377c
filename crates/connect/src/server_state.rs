//! Asks a server whether it is a standby, and whether its sessions only read.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use pgentra_wire::frame::Header;
use pgentra_wire::limits;
use pgentra_wire::session_attrs::ServerState;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The question to a server that does not report its state. Works on every version since 9.0; libpq asks the same in two
/// queries.
const QUESTION: &str =
    "SELECT pg_catalog.pg_is_in_recovery()::text, pg_catalog.current_setting('transaction_read_only')";
/// Bound in bytes for the answer: two columns, with their description.
const ANSWER: usize = 512;

/// The state of a server that was asked, and messages that are not part of the answer.
#[derive(Debug)]
pub(crate) struct StateAnswer {
    pub(crate) state: ServerState,
    /// Notices, settings and notifications, whole and in their order.
    pub(crate) aside: Bytes,
}

/// Why a server did not tell its state.
#[derive(Debug)]
pub(crate) enum Untold {
    /// The connection broke.
    Broken(io::Error),
    /// The answer is not the expected one; the session cannot be used any more.
    Unexpected,
    /// The server refused the question, as it does in a session for physical replication.
    Refused,
}

/// Asks an idle session for its server's state; `received` are bytes that the server has sent already, which have to be
/// whole messages that belong to no answer.
pub(crate) async fn ask<S>(stream: &mut S, received: BytesMut) -> Result<StateAnswer, Untold>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&query(QUESTION)).await.map_err(Untold::Broken)?;
    stream.flush().await.map_err(Untold::Broken)?;
    let mut received = received;
    let (mut aside, mut state, mut is_refused) = (BytesMut::new(), None, false);
    loop {
        let (tag, bytes) = message(stream, &mut received).await?;
        match tag {
            b'N' | b'S' | b'A' if aside.len() + bytes.len() <= limits::BACKEND_MESSAGE => {
                aside.extend_from_slice(&bytes);
            }
            b'T' | b'C' => {}
            b'D' if state.is_none() => state = Some(row(bytes).ok_or(Untold::Unexpected)?),
            b'E' => is_refused = true,
            b'Z' if received.is_empty() => break,
            _ => return Err(Untold::Unexpected),
        }
    }
    match state {
        _ if is_refused => Err(Untold::Refused),
        Some(state) => Ok(StateAnswer { state, aside: aside.freeze() }),
        None => Err(Untold::Unexpected),
    }
}

/// The next message: its type, and all of it.
async fn message<S>(stream: &mut S, received: &mut BytesMut) -> Result<(u8, Bytes), Untold>
where
    S: AsyncRead + Unpin,
{
    loop {
        match Header::peek(received) {
            Ok(Some(header)) if header.body > limits::BACKEND_MESSAGE => return Err(Untold::Unexpected),
            Ok(Some(header)) if received.len() >= Header::SIZE + header.body => {
                return Ok((header.tag, received.split_to(Header::SIZE + header.body).freeze()));
            }
            Ok(_) => {}
            Err(_) => return Err(Untold::Unexpected),
        }
        received.reserve(ANSWER);
        if stream.read_buf(received).await.map_err(Untold::Broken)? == 0 {
            return Err(Untold::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Encodes a Query message.
fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).unwrap_or(u32::MAX);
    let mut message = vec![b'Q'];
    message.extend(length.to_be_bytes());
    message.extend(sql.as_bytes());
    message.push(0);
    message
}

/// The two columns of a DataRow message.
fn row(mut message: Bytes) -> Option<ServerState> {
    message.advance(Header::SIZE);
    if message.try_get_u16().ok()? != 2 {
        return None;
    }
    let is_standby = matches!(&*column(&mut message)?, b"true");
    let only_reads = matches!(&*column(&mut message)?, b"on");
    message.is_empty().then_some(ServerState { is_standby, only_reads })
}

fn column(row: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(row.try_get_i32().ok()?).ok()?;
    (length <= row.len()).then(|| row.split_to(length))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const DESCRIPTION: &[u8] = b"T\0\0\0\x06\0\x02";
    const DONE: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    const PRIMARY: &[u8] = b"D\0\0\0\x16\0\x02\0\0\0\x05false\0\0\0\x03off";
    const STANDBY: &[u8] = b"D\0\0\0\x14\0\x02\0\0\0\x04true\0\0\0\x02on";
    const FROZEN: &[u8] = b"D\0\0\0\x15\0\x02\0\0\0\x05false\0\0\0\x02on";
    const SETTING: &[u8] = b"S\0\0\0\x11TimeZone\0UTC\0";
    const NOTICE: &[u8] = b"N\0\0\0\x05\0";
    const ERROR: &[u8] = b"E\0\0\0\x05\0";

    async fn answered(messages: &[&[u8]], before: &[u8]) -> Result<(String, Vec<u8>), String> {
        let (mut near, mut far) = duplex(4096);
        far.write_all(&messages.concat()).await.unwrap();
        let server = async move {
            let mut asked = vec![0; QUESTION.len() + 6];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, query(QUESTION));
        };
        let (answer, ()) = tokio::join!(ask(&mut near, BytesMut::from(before)), server);
        let answer = answer.map_err(|untold| format!("{untold:?}"))?;
        Ok((answer.state.to_string(), answer.aside.to_vec()))
    }

    #[tokio::test]
    async fn a_server_that_is_asked_tells_its_state() {
        for (row, state) in
            [(PRIMARY, "a primary"), (STANDBY, "a standby"), (FROZEN, "a primary that only reads")]
        {
            assert_eq!(answered(&[DESCRIPTION, row, DONE], b"").await, Ok((state.to_owned(), vec![])));
        }
        // What else the server says is for the session.
        let answer = answered(&[DESCRIPTION, SETTING, STANDBY, DONE], NOTICE).await.unwrap();
        assert_eq!(answer.1, [NOTICE, SETTING].concat());
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_told_from_a_state() {
        for (about, messages, is) in [
            ("the server hangs up", &[DESCRIPTION][..], "Broken"),
            ("an error", &[ERROR, b"Z\0\0\0\x05I"], "Refused"),
            ("no row", &[DESCRIPTION, DONE], "Unexpected"),
            ("two rows", &[DESCRIPTION, PRIMARY, PRIMARY, DONE], "Unexpected"),
            ("one column", &[DESCRIPTION, b"D\0\0\0\x0c\0\x01\0\0\0\x02on", DONE], "Unexpected"),
            ("a column that is cut off", &[b"D\0\0\0\x0c\0\x02\0\0\0\x09on", DONE], "Unexpected"),
            ("more than the answer", &[DESCRIPTION, PRIMARY, DONE, NOTICE], "Unexpected"),
            ("another message", &[b"G\0\0\0\x04"], "Unexpected"),
            ("a message too long", &[b"N\x01\0\0\0"], "Unexpected"),
            ("no message", &[b"N\0\0\0\x01"], "Unexpected"),
        ] {
            let untold = answered(messages, b"").await.unwrap_err();
            assert!(untold.starts_with(is), "{about}: {untold}");
        }
    }
}
