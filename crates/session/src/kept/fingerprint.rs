//! Checks that a pooled session equals one that would be opened now.
//!
//! The server is asked for a fingerprint of all catalog entries that decide whether the role may
//! sign in to the database and with which settings: once when a session has been opened, and
//! again before the session goes to a client. A session whose fingerprint has changed is ended.
//! There is no fingerprint, and the session is ended too, if the connection limit of the role or
//! database is exceeded, or if the database has a login event trigger, because that runs when a
//! session begins.
//!
//! PostgreSQL hides parts of its catalogs from an ordinary role, so the age of a session has to be
//! bounded too.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use pgentra_wire::WireError;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::frame::Header;
use pgentra_wire::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::CHECK;

/// The query. Every name in it has its schema, operators included, because the role's `search_path`
/// may contain other schemas. It works on PostgreSQL 13 to 18 without any privilege. `xmin` shows a
/// mapping that was replaced by one with the same text.
pub const FINGERPRINT_QUERY: &str = include_str!("kept_session.sql");
/// Bound in bytes for the answer, which is shorter.
const ANSWER: usize = 256;
/// Length of a SHA-256 in hexadecimal digits.
const DIGITS: usize = 64;

/// The fingerprint of a session's role and database at the time of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(Bytes);

/// The last fingerprint of the sessions with one start-up. Clients that come while a query runs
/// share the next answer, so that many clients at once cause a few queries only.
#[derive(Debug, Default)]
pub struct Latest(Mutex<Option<(Instant, Option<Fingerprint>)>>);

impl Latest {
    /// A fingerprint that was queried at `since` or later: the last one, else that of `ask`.
    async fn since<E>(
        &self,
        since: Instant,
        ask: impl Future<Output = Result<Option<Fingerprint>, E>>,
    ) -> Result<Option<Fingerprint>, E> {
        let mut latest = self.0.lock().await;
        if let Some((put, answer)) = &*latest
            && *put >= since
        {
            return Ok(answer.clone());
        }
        let put = Instant::now();
        let answer = ask.await?;
        *latest = Some((put, answer.clone()));
        Ok(answer)
    }
}

/// Why a session gave no fingerprint.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The server does not speak the protocol.
    #[error("the server does not speak the protocol")]
    Wire(#[from] WireError),
    /// The server sent another answer than the expected one.
    #[error("the server's answer was not the expected one")]
    AuthMessage,
    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    Slow,
}

/// See [`identify`].
async fn fingerprint<S>(
    stream: &mut S,
    received: &mut BytesMut,
    mut aside: impl FnMut(&[u8]),
) -> Result<Option<Fingerprint>, Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&query(FINGERPRINT_QUERY.trim_end())).await?;
    stream.flush().await?;
    received.reserve(ANSWER);
    let mut found = None;
    let mut failed = false;
    loop {
        let message = Message::read(stream, received).await?;
        match message.tag {
            b'N' | b'S' | b'A' => aside(&message.bytes),
            b'T' | b'C' if !failed => {}
            b'D' if !failed && found.is_none() => found = Some(value(message.body())?),
            b'E' if !failed => {
                failed = true;
                let mut bytes = BytesMut::from(&message.bytes[..]);
                if let Ok(Some(BackendMessage::ErrorResponse(fields))) = BackendMessage::decode(&mut bytes) {
                    tracing::info!(
                        error = fields.to_string(),
                        "the server does not tell whether a session may be kept"
                    );
                }
            }
            b'Z' if message.body() == b"I"[..] => break,
            _ => return Err(Unanswered::AuthMessage),
        }
    }
    if !received.is_empty() {
        return Err(Unanswered::AuthMessage);
    }
    Ok(found.flatten().filter(|_| !failed).map(Fingerprint))
}

/// Queries the fingerprint, within [`CHECK`]. `None`: there is none, or the query failed; the session is
/// idle in both cases. `received` are bytes that the server has sent already; messages that are not part
/// of the answer are given to `aside`, whole.
///
/// # Errors
/// The session cannot be used.
pub async fn identify<S>(
    stream: &mut S,
    received: &mut BytesMut,
    aside: impl FnMut(&[u8]),
) -> Result<Option<Fingerprint>, Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(CHECK, fingerprint(stream, received, aside)).await.unwrap_or(Err(Unanswered::Slow))
}

/// Whether the server still gives this fingerprint, by an answer that is not older than `since`.
///
/// # Errors
/// The session cannot be used.
pub async fn is_unchanged<S>(
    stream: &mut S,
    own: Option<&Fingerprint>,
    latest: &Latest,
    since: Instant,
) -> Result<bool, Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut received, mut is_disturbed) = (BytesMut::new(), false);
    let ask = fingerprint(stream, &mut received, |_| is_disturbed = true);
    let answer = timeout(CHECK, latest.since(since, ask)).await.unwrap_or(Err(Unanswered::Slow))?;
    Ok(!is_disturbed && answer.is_some() && answer.as_ref() == own)
}

/// Encodes a Query message.
pub fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(sql.len() + 6);
    message.push(b'Q');
    message.extend(length.to_be_bytes());
    message.extend(sql.as_bytes());
    message.push(0);
    message
}

/// The only column of a row; `None` is NULL.
fn value(mut row: Bytes) -> Result<Option<Bytes>, Unanswered> {
    if row.try_get_u16().ok() != Some(1) {
        return Err(Unanswered::AuthMessage);
    }
    match row.try_get_i32().ok() {
        Some(-1) if row.is_empty() => Ok(None),
        Some(length) if usize::try_from(length) == Ok(DIGITS) && row.len() == DIGITS => Ok(Some(row)),
        _ => Err(Unanswered::AuthMessage),
    }
}

/// A message from the server.
pub struct Message {
    /// The type of the message.
    pub tag: u8,
    /// The whole message with its header.
    pub bytes: Bytes,
}

impl Message {
    /// Reads the next message.
    ///
    /// # Errors
    /// The connection broke, or the message is longer than any that a server sends.
    pub async fn read<S: AsyncRead + Unpin>(
        stream: &mut S,
        received: &mut BytesMut,
    ) -> Result<Self, Unanswered> {
        loop {
            match Header::peek(received)? {
                Some(header) if header.body > limits::BACKEND_MESSAGE => return Err(Unanswered::AuthMessage),
                Some(header) if received.len() >= Header::SIZE + header.body => {
                    let bytes = received.split_to(Header::SIZE + header.body).freeze();
                    return Ok(Self { tag: header.tag, bytes });
                }
                _ => {
                    if stream.read_buf(received).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        }
    }

    /// The message without its header.
    pub fn body(&self) -> Bytes {
        let mut body = self.bytes.clone();
        body.advance(Header::SIZE);
        body
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const ROWS: &[u8] = b"T\0\0\0\x06\0\x01";
    const DONE: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    const NULL: &[u8] = b"D\0\0\0\x0a\0\x01\xff\xff\xff\xff";
    const NOTICE: &[u8] = b"N\0\0\0\x05\0";

    fn row(digit: u8) -> Vec<u8> {
        [b"D\0\0\0\x4a\0\x01\0\0\0\x40", &[digit; DIGITS][..]].concat()
    }

    async fn after(before: &[u8], answers: &[&[u8]]) -> (Result<Option<Fingerprint>, Unanswered>, Vec<u8>) {
        let (mut near, mut far) = duplex(4096);
        far.write_all(&answers.concat()).await.unwrap();
        let server = async move {
            let expected = query(FINGERPRINT_QUERY.trim_end());
            let mut asked = vec![0; expected.len()];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, expected);
        };
        let (mut received, mut aside) = (BytesMut::from(before), Vec::new());
        let asking = fingerprint(&mut near, &mut received, |message| aside.extend(message));
        let (answer, ()) = tokio::join!(asking, server);
        (answer, aside)
    }

    #[tokio::test]
    async fn an_answer_is_a_fingerprint_or_none() {
        let one = Some(Fingerprint(Bytes::from_static(&[b'1'; DIGITS])));
        for (about, answers, expected) in [
            ("a row", &[ROWS, &row(b'1'), DONE][..], &one),
            ("NULL", &[ROWS, NULL, DONE], &None),
            ("no row", &[ROWS, DONE], &None),
            ("an error", &[b"E\0\0\0\x05\0Z\0\0\0\x05I"], &None),
            ("an error behind a row", &[ROWS, &row(b'1'), b"E\0\0\0\x05\0Z\0\0\0\x05I"], &None),
        ] {
            assert_eq!(&after(b"", answers).await.0.unwrap(), expected, "{about}");
        }
        // Messages that the server sent without a request, also if the first part came with the
        // greeting.
        let (answer, aside) = after(&NOTICE[..3], &[&NOTICE[3..], ROWS, &row(b'1'), NOTICE, DONE]).await;
        assert_eq!((answer.unwrap(), aside), (one, [NOTICE, NOTICE].concat()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_shared_by_those_who_came_before_the_question() {
        let latest = Latest::default();
        let one = Some(Fingerprint(Bytes::from_static(b"1")));
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let ask = || async {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            Ok::<_, Unanswered>(one.clone())
        };
        let early = Instant::now();
        let (first, second) = tokio::join!(latest.since(early, ask()), latest.since(early, ask()));
        assert_eq!((first.unwrap(), second.unwrap()), (one.clone(), one.clone()));
        let late = Instant::now();
        latest.since(late, ask()).await.unwrap();
        assert_eq!(
            asked.load(std::sync::atomic::Ordering::Relaxed),
            2,
            "an answer older than `since` was used"
        );
        // A failure is not shared with other clients.
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        let late = Instant::now();
        assert!(latest.since(late, async { Err(Unanswered::AuthMessage) }).await.is_err());
        latest.since(late, ask()).await.unwrap();
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn any_other_answer_is_none() {
        for (about, answers) in [
            ("the server hangs up", &[][..]),
            ("in the middle", &[ROWS, &row(b'1')[..9]]),
            ("two rows", &[ROWS, &row(b'1'), &row(b'1'), DONE]),
            ("two columns", &[ROWS, b"D\0\0\0\x0e\0\x02\xff\xff\xff\xff\xff\xff\xff\xff", DONE]),
            ("a short value", &[ROWS, b"D\0\0\0\x0b\0\x01\0\0\0\x011", DONE]),
            ("a transaction is open", &[ROWS, &row(b'1'), b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05T"]),
            ("more than was asked for", &[ROWS, &row(b'1'), DONE, NOTICE]),
            ("a message too long", &[b"N\x01\0\0\0"]),
        ] {
            assert!(after(b"", answers).await.0.is_err(), "{about}");
        }
    }
}
