//! Finds the moments at which a session can be sent an error during a drain.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use pgentra_session::relay::drained;
use pgentra_session::tracker::ProtocolTracker;

/// How long sessions go on when the proxy drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// Until the deadline, to end by themselves.
    #[default]
    Session,
    /// Until the transaction ends: at the next ReadyForQuery outside of a transaction, the client
    /// gets SQLSTATE 57P01. The messages of the session are tracked from its beginning, which costs
    /// some processor time.
    Transaction,
}

/// Length in bytes of ReadyForQuery, whose body is one byte.
const READY: usize = 6;

/// The message Terminate (PostgreSQL documentation, "Message Formats").
const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";

/// A client's connection that tracks where an ErrorResponse may be inserted between the messages to
/// the client.
pub(crate) struct DrainWatch<'a, C> {
    client: &'a mut C,
    seen: Seen,
    /// The last bytes that the client sent.
    sent: [u8; TERMINATE.len()],
    /// Bytes were written but may not be sent yet: TLS keeps them until it is flushed.
    unflushed: bool,
    drain: &'a CancellationToken,
    /// Cancelled when the session is to end between two messages, in a transaction too.
    demoted: Option<&'a CancellationToken>,
}

enum Seen {
    /// The last bytes written to the client, which show a session that waits for the next query.
    Tail([u8; READY]),
    Messages(Box<ProtocolTracker>),
}

impl<'a, C> DrainWatch<'a, C> {
    /// Wraps a connection after the sign-in, when the client has got ReadyForQuery. Once `drain` is
    /// cancelled, with [`Drain::Transaction`], reading from an idle client returns [`drained`];
    /// the caller must poll once more to get it. Once `demoted` is cancelled, it returns that as soon
    /// as the client has got whole messages only.
    pub(crate) fn new(
        client: &'a mut C,
        how: Drain,
        drain: &'a CancellationToken,
        demoted: Option<&'a CancellationToken>,
    ) -> Self {
        let seen = match how {
            Drain::Session => Seen::Tail(*b"Z\0\0\0\x05I"),
            Drain::Transaction => Seen::Messages(Box::default()),
        };
        Self { client, seen, sent: [0; TERMINATE.len()], unflushed: false, drain, demoted }
    }

    /// Whether the client has got whole messages only, so that another one can follow. Without
    /// message tracking, the client counts as waiting unless the last bytes it got are those of
    /// ReadyForQuery. They could be part of a result by chance; the session ends in either case.
    pub(crate) fn is_between_messages(&self) -> bool {
        match &self.seen {
            Seen::Tail([b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E']) => true,
            Seen::Tail(_) => false,
            Seen::Messages(tracker) => tracker.is_between_answers(),
        }
    }

    /// Whether the client ended the session: the last that it sent is Terminate. The server hangs up
    /// then, which can be seen before the client's end. The bytes could end a longer message by chance.
    pub(crate) fn is_terminated(&self) -> bool {
        self.sent == TERMINATE
    }

    fn is_over(&self) -> bool {
        if self.demoted.is_some_and(CancellationToken::is_cancelled) {
            return !self.unflushed && self.is_between_messages();
        }
        match &self.seen {
            Seen::Tail(_) => false,
            Seen::Messages(tracker) => self.drain.is_cancelled() && !self.unflushed && tracker.is_at_rest(),
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        keep_last(&mut self.sent, bytes);
        if let Seen::Messages(tracker) = &mut self.seen {
            // A client's Terminate does not matter here.
            let _ = tracker.client(bytes);
        }
    }

    fn got(&mut self, bytes: &[u8]) {
        match &mut self.seen {
            Seen::Tail(tail) => keep_last(tail, bytes),
            Seen::Messages(tracker) => tracker.server(bytes),
        }
    }
}

fn keep_last<const N: usize>(tail: &mut [u8; N], bytes: &[u8]) {
    if let Some(last) = bytes.last_chunk() {
        *tail = *last;
        return;
    }
    tail.rotate_left(bytes.len());
    tail[N - bytes.len()..].copy_from_slice(bytes);
}

impl<C: AsyncRead + Unpin> AsyncRead for DrainWatch<'_, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over() {
            return Poll::Ready(Err(drained()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut *this.client).poll_read(cx, buf);
        this.sent(&buf.filled()[before..]);
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for DrainWatch<'_, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.client).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            this.got(&buf[..written]);
            this.unflushed = true;
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut *this.client).poll_flush(cx))?;
        this.unflushed = false;
        if this.is_over() {
            // The next poll would otherwise wait until the client sends something.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().client).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const QUERY: &[u8] = b"Q\0\0\0\x06;\0";
    const EMPTY: &[u8] = b"I\0\0\0\x04";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const OPEN: &[u8] = b"Z\0\0\0\x05T";

    /// A demoted session ends wherever a message may follow, but not within one.
    #[tokio::test]
    async fn a_demoted_session_ends_between_two_messages() {
        for (about, during, is_over) in [
            ("it waits", &[][..], true),
            ("a transaction is open", &[EMPTY, OPEN], true),
            ("an answer has begun", &[&EMPTY[..2]], false),
        ] {
            let (mut near, _far) = duplex(1024);
            let (drain, demoted) = (CancellationToken::new(), CancellationToken::new());
            let mut watched = DrainWatch::new(&mut near, Drain::Session, &drain, Some(&demoted));
            for bytes in during {
                watched.write_all(bytes).await.unwrap();
                watched.flush().await.unwrap();
            }
            assert!(!watched.is_over(), "{about}");
            demoted.cancel();
            assert_eq!(watched.is_over(), is_over, "{about}");
            watched.write_all(READY).await.unwrap();
            assert!(!watched.is_over(), "{about}: the client has not got the message yet");
            watched.flush().await.unwrap();
            assert!(watched.is_over(), "{about}");
        }
    }

    #[tokio::test]
    async fn a_session_at_rest_ends_and_another_when_it_comes_to_rest() {
        for (about, before, during, is_between) in [
            ("no request yet", &b""[..], &[][..], true),
            ("a query is under way", QUERY, &[EMPTY, READY], true),
            ("a transaction is open", QUERY, &[EMPTY, OPEN], true),
            ("an answer has begun", QUERY, &[&EMPTY[..2]], false),
        ] {
            let (mut near, mut far) = duplex(1024);
            let drain = CancellationToken::new();
            let mut watched = DrainWatch::new(&mut near, Drain::Transaction, &drain, None);
            let mut received = [0; 64];
            far.write_all(before).await.unwrap();
            if !before.is_empty() {
                assert_eq!(watched.read(&mut received).await.unwrap(), before.len());
            }
            drain.cancel();
            for bytes in during {
                assert!(!watched.is_over(), "{about}");
                watched.write_all(bytes).await.unwrap();
                assert!(!watched.is_over(), "{about}: the client has not got the message yet");
                watched.flush().await.unwrap();
            }
            let at_rest = during.last().is_none_or(|last| *last == READY);
            assert_eq!(watched.is_between_messages(), is_between, "{about}");
            far.write_all(QUERY).await.unwrap();
            let read = watched.read(&mut received).await;
            let drained = read.is_err_and(|error| error.to_string() == drained().to_string());
            assert_eq!(drained, at_rest, "{about}");
        }
    }

    #[tokio::test]
    async fn without_a_drain_a_session_at_rest_goes_on() {
        let (mut near, mut far) = duplex(1024);
        let drain = CancellationToken::new();
        let mut watched = DrainWatch::new(&mut near, Drain::Transaction, &drain, None);
        far.write_all(QUERY).await.unwrap();
        assert_eq!(watched.read(&mut [0; 64]).await.unwrap(), QUERY.len());
        watched.write_all(&[EMPTY, READY].concat()).await.unwrap();
        far.write_all(QUERY).await.unwrap();
        assert_eq!(watched.read(&mut [0; 64]).await.unwrap(), QUERY.len());
    }

    #[tokio::test]
    async fn the_tail_tells_who_waits() {
        let (mut near, _far) = duplex(1024);
        let drain = CancellationToken::new();
        drain.cancel();
        let mut watched = DrainWatch::new(&mut near, Drain::Session, &drain, None);
        assert!(watched.is_between_messages());
        for (bytes, is_between) in
            [(EMPTY, false), (&OPEN[..3], false), (&OPEN[3..], true), (&b"\0"[..], false), (READY, true)]
        {
            watched.write_all(bytes).await.unwrap();
            assert_eq!(watched.is_between_messages(), is_between, "{bytes:?}");
        }
    }

    /// A server that answers Terminate by hanging up is not what ends the session.
    #[tokio::test]
    async fn the_last_bytes_tell_that_the_client_left() {
        for how in [Drain::Session, Drain::Transaction] {
            let (mut near, mut far) = duplex(1024);
            let drain = CancellationToken::new();
            let mut watched = DrainWatch::new(&mut near, how, &drain, None);
            for (bytes, is_terminated) in
                [(QUERY, false), (b"X\0\0", false), (b"\0\x04", true), (QUERY, false), (&TERMINATE, true)]
            {
                far.write_all(bytes).await.unwrap();
                watched.read_exact(&mut vec![0; bytes.len()]).await.unwrap();
                assert_eq!(watched.is_terminated(), is_terminated, "{bytes:?}");
            }
        }
    }
}
