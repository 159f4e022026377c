//! Forwards bytes in both directions until one side ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::poll_read_buf;

use super::client::linger;

/// Bytes that one direction takes at a time: the most that TLS returns at once. A buffer is held
/// only while bytes flow, so an idle session holds none.
const BUFFER: usize = 144 * 1024;
/// Free buffers that a thread keeps: enough for two directions and some sessions whose other side
/// is slow. Further ones come from the allocator and go back to it.
const KEPT: usize = 4;
/// Bytes after which a busy direction lets the other one run. Otherwise an error that the server
/// sends during a long COPY would wait until the client pauses.
const TURN: usize = 4 * BUFFER;
/// How long the relay waits for a client to hang up after the server has.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// The free buffers of this thread.
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Changes what a client sends to the server, and observes what the server sends.
pub trait Filter {
    /// Gets the received bytes and leaves those to send. It may hold bytes back until more arrive.
    fn rewrite(&mut self, bytes: &mut BytesMut);

    /// Gets the bytes that the server sent.
    fn see(&mut self, _: &[u8]) {}

    /// The client has hung up.
    fn hang_up(&mut self) {}

    /// Whether the client has left a session that the pool keeps. The relay then reads nothing more
    /// from either side and ends once the bytes read so far are delivered.
    fn stays(&self) -> bool {
        false
    }
}

/// Forwards the client's bytes unchanged.
pub struct AsIs;

impl Filter for AsIs {
    fn rewrite(&mut self, _: &mut BytesMut) {}
}

/// Shows the server's bytes to the filter and forwards them unchanged.
struct Observed<'a, R>(&'a mut R);

impl<R: Filter> Filter for Observed<'_, R> {
    fn rewrite(&mut self, bytes: &mut BytesMut) {
        self.0.see(bytes);
    }

    fn stays(&self) -> bool {
        self.0.stays()
    }
}

/// Relays until the server hangs up, the client leaves a session that [`stays`](Filter::stays), or one side breaks.
/// `first` is what the server has sent already.
///
/// A client that closes only its sending side still gets its answers. When the server hangs up or
/// its connection breaks, the relay delivers its last bytes and ends. Of a session that stays, the
/// relay closes neither side, but all bytes read from one side have been written to the other and
/// flushed.
///
/// Not cancel-safe: a dropped relay loses the bytes that it holds, so close both sides then.
pub async fn relay<C, S>(
    client: &mut C,
    server: &mut S,
    first: BytesMut,
    rewrite: &mut impl Filter,
) -> RelayOutcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Pipe::new(BytesMut::new());
    let mut down = Pipe::new(first);
    let outcome = poll_fn(|cx| {
        match up.poll(cx, client, server, rewrite) {
            Poll::Ready(Err(PipeError::Read(error))) => return Poll::Ready(RelayOutcome::of_client(error)),
            // The server does not read any more, but its last bytes are still to be delivered.
            Poll::Ready(Err(PipeError::Write(_)) | Ok(())) | Poll::Pending => {}
        }
        match ready!(down.poll(cx, server, client, &mut Observed(rewrite))) {
            // The client has all its answers, or has left without them. The server may still lack
            // the end of a message; without it, the next client's first bytes would be taken for
            // that end.
            Ok(()) | Err(PipeError::Write(_)) if rewrite.stays() && up.state != State::Done => Poll::Pending,
            Err(PipeError::Write(_)) if rewrite.stays() => Poll::Ready(RelayOutcome::ClosedByClient),
            Ok(()) if up.state == State::Done => Poll::Ready(RelayOutcome::ClosedByClient),
            Ok(()) => Poll::Ready(RelayOutcome::ClosedByServer),
            Err(PipeError::Read(error)) => Poll::Ready(RelayOutcome::ServerIo(error)),
            Err(PipeError::Write(error)) => Poll::Ready(RelayOutcome::ClientIo(error)),
        }
    })
    .await;
    match outcome {
        RelayOutcome::ClientIo(_) | RelayOutcome::Drained => return outcome,
        _ if rewrite.stays() => return RelayOutcome::ClosedByClient,
        _ => {}
    }
    Box::pin(async {
        if matches!(outcome, RelayOutcome::ServerIo(_)) {
            // Tells the client that the server hung up; this also flushes the server's last bytes.
            let _ = client.shutdown().await;
        }
        // The session is over; the wait for the client to hang up is bounded.
        hang_up(client).await;
    })
    .await;
    outcome
}

/// Waits for a client that was told that its session is over, but no longer than two seconds.
pub async fn hang_up(client: &mut (impl AsyncRead + Unpin)) {
    let _ = tokio::time::timeout(LINGER, linger(client)).await;
}

/// How a relayed session ended.
#[derive(Debug)]
pub enum RelayOutcome {
    /// The client hung up first, or left a session that stays.
    ClosedByClient,
    /// The server hung up first.
    ClosedByServer,
    /// The client's connection broke.
    ClientIo(io::Error),
    /// The connection to the server broke.
    ServerIo(io::Error),
    /// Reading from the client returned [`drained`]: the session is idle and both sides are open.
    Drained,
}

/// The error with which a client's connection ends its relay as [`RelayOutcome::Drained`].
pub fn drained() -> io::Error {
    io::Error::other(Drained)
}

#[derive(Debug, thiserror::Error)]
#[error("the session is idle, and the process is shutting down")]
struct Drained;

impl RelayOutcome {
    /// The outcome of an error of the client's connection.
    fn of_client(error: io::Error) -> Self {
        match error.get_ref() {
            Some(inner) if inner.is::<Drained>() => Self::Drained,
            _ => Self::ClientIo(error),
        }
    }
}

/// Which end of one direction broke.
enum PipeError {
    Read(io::Error),
    Write(io::Error),
}

/// The state of one direction.
struct Pipe {
    buf: BytesMut,
    state: State,
    unflushed: bool,
}

#[derive(PartialEq)]
enum State {
    Flowing,
    /// The source is at its end: the rest is sent, then the sink is shut down.
    Ending,
    Done,
}

impl Pipe {
    fn new(first: BytesMut) -> Self {
        Self { buf: first, state: State::Flowing, unflushed: false }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        rewrite: &mut impl Filter,
    ) -> Poll<Result<(), PipeError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.state == State::Done {
            return Poll::Ready(Ok(()));
        }
        let ended = ready!(self.flow(cx, source, sink, rewrite));
        self.state = State::Done;
        give_back(std::mem::take(&mut self.buf));
        Poll::Ready(ended)
    }

    fn flow<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        rewrite: &mut impl Filter,
    ) -> Poll<Result<(), PipeError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = 0;
        loop {
            while !self.buf.is_empty() {
                match ready!(Pin::new(&mut *sink).poll_write(cx, &self.buf)).map_err(PipeError::Write)? {
                    0 => return Poll::Ready(Err(PipeError::Write(io::ErrorKind::WriteZero.into()))),
                    written => {
                        self.buf.advance(written);
                        moved += written;
                    }
                }
                self.unflushed = true;
            }
            if rewrite.stays() {
                return self.poll_flush(cx, sink);
            }
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.state == State::Ending {
                return Pin::new(sink).poll_shutdown(cx).map_err(PipeError::Write);
            }
            if self.buf.capacity() == 0 {
                self.buf = lend();
            }
            self.buf.reserve(BUFFER);
            match poll_read_buf(Pin::new(&mut *source), cx, &mut self.buf) {
                Poll::Ready(Ok(0)) => {
                    rewrite.hang_up();
                    self.state = State::Ending;
                }
                Poll::Ready(Ok(_)) => rewrite.rewrite(&mut self.buf),
                // TLS without close_notify: not every client sends it.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    rewrite.hang_up();
                    self.state = State::Ending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(PipeError::Read(error))),
                Poll::Pending => {
                    give_back(std::mem::take(&mut self.buf));
                    ready!(self.poll_flush(cx, sink))?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
    ) -> Poll<Result<(), PipeError>> {
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(cx)).map_err(PipeError::Write)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// A free buffer of this thread, or a new one without memory.
fn lend() -> BytesMut {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_back(mut buf: BytesMut) {
    buf.clear();
    // The filter may have split off a part of the buffer.
    if buf.try_reclaim(BUFFER) {
        BUFFERS.with_borrow_mut(|kept| {
            if kept.len() < KEPT {
                kept.push(buf);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, BufStream, DuplexStream, duplex};

    use super::*;
    use crate::tracker::ProtocolTracker;

    struct Ends {
        client: DuplexStream,
        server: DuplexStream,
        relay: tokio::task::JoinHandle<RelayOutcome>,
    }

    fn relayed(first: &[u8]) -> Ends {
        let (client, mut near) = duplex(1024);
        let (server, mut far) = duplex(1024);
        let first = BytesMut::from(first);
        let relay = tokio::spawn(async move { relay(&mut near, &mut far, first, &mut AsIs).await });
        Ends { client, server, relay }
    }

    #[tokio::test]
    async fn both_ways_and_more_than_any_buffer() {
        let Ends { client, server, relay } = relayed(b"first");
        let (mut from_relay, mut to_relay) = tokio::io::split(client);
        let (mut server_from, mut server_to) = tokio::io::split(server);
        let long: Vec<u8> = (0..300_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let (upload, download) = (long.clone(), long.clone());
        let send = tokio::spawn(async move {
            to_relay.write_all(&upload).await.unwrap();
            to_relay.shutdown().await.unwrap();
        });
        let echo = tokio::spawn(async move {
            let mut received = Vec::new();
            server_from.read_to_end(&mut received).await.unwrap();
            // The client has closed its sending side and still gets its answer.
            server_to.write_all(&download).await.unwrap();
            server_to.shutdown().await.unwrap();
            received
        });
        let mut received = Vec::new();
        from_relay.read_to_end(&mut received).await.unwrap();
        assert_eq!(&received[..5], b"first");
        assert_eq!(&received[5..], &long[..]);
        assert_eq!(echo.await.unwrap(), long);
        send.await.unwrap();
        drop(from_relay);
        assert!(matches!(relay.await.unwrap(), RelayOutcome::ClosedByClient));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_hang_up_is_left() {
        let Ends { mut client, mut server, relay } = relayed(b"");
        server.write_all(b"goodbye").await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"goodbye");
        assert!(matches!(relay.await.unwrap(), RelayOutcome::ClosedByServer));
    }

    #[tokio::test]
    async fn the_last_words_of_a_server_that_no_longer_listens_are_delivered() {
        let (mut client, mut near) = duplex(1024);
        let (mut far, server) = duplex(1024);
        let first = BytesMut::from(&b"last words"[..]);
        drop(server);
        client.write_all(b"a query").await.unwrap();
        let relay = tokio::spawn(async move { relay(&mut near, &mut far, first, &mut AsIs).await });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last words");
        drop(client);
        let ended = relay.await.unwrap();
        assert!(matches!(ended, RelayOutcome::ClosedByClient | RelayOutcome::ClosedByServer), "{ended:?}");
    }

    const QUERY: &[u8] = b"Q\0\0\0\x06;\0";
    const TERMINATE: &[u8] = b"X\0\0\0\x04";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    /// CopyData outside of COPY, which a server ignores.
    const COPY_DATA: &[u8] = b"d\0\0\0\x08late";

    fn answer(length: usize) -> Vec<u8> {
        let row = u32::try_from(length + 4).unwrap().to_be_bytes();
        [b"D", &row[..], &vec![b'x'; length], b"C\0\0\0\x0dSELECT 1\0", READY].concat()
    }

    async fn once<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }

    /// The pool keeps the session. The proxy has read the whole answer before the client reads any
    /// of it; the client's connection buffers `pipe` bytes.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_before_it_has_read_its_answer_gets_all_of_it() {
        for (about, last, pipe, length) in [
            ("the client closes its sending side", &b""[..], 1000, 100_000),
            ("the client sends Terminate", TERMINATE, 1000, 100_000),
            ("the client sends Terminate in pieces", b"X", 1000, 100_000),
            ("only the last byte is missing", TERMINATE, 100_000 + 29, 100_000),
            ("the answer is not flushed yet", TERMINATE, 100_000, 10),
            ("a message without an answer comes first", &[COPY_DATA, TERMINATE].concat(), 50, 10_000),
        ] {
            let (mut client, near) = duplex(pipe);
            // As TLS does, it buffers written bytes until they are flushed.
            let mut near = BufStream::new(near);
            let (mut far, mut server) = duplex(1 << 20);
            let answer = answer(length);
            server.write_all(&answer).await.unwrap();
            client.write_all(QUERY).await.unwrap();
            let mut tracker = ProtocolTracker::default();
            {
                let mut relay = pin!(relay(&mut near, &mut far, BytesMut::new(), &mut tracker));
                assert!(once(&mut relay).await.is_pending(), "{about}");
                client.write_all(last).await.unwrap();
                if last.is_empty() {
                    client.shutdown().await.unwrap();
                }
                let mut received = vec![0; answer.len()];
                let read = tokio::time::timeout(LINGER, client.read_exact(&mut received));
                let (ended, read) = tokio::join!(relay, read);
                assert!(matches!(ended, RelayOutcome::ClosedByClient), "{about}: {ended:?}");
                assert!(read.is_ok_and(|read| read.is_ok()), "{about}: the end of the answer is missing");
                assert!(received == answer, "{about}");
            }
            assert!(tracker.ended_idle(), "{about}");
            drop(far);
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, [QUERY, last.strip_suffix(TERMINATE).unwrap_or_default()].concat(), "{about}");
        }
    }

    #[tokio::test]
    async fn a_session_is_not_taken_back_before_the_server_has_all_of_the_last_message() {
        let (mut client, mut near) = duplex(1000);
        let (says, mut to_proxy) = duplex(1000);
        let (hears, mut from_proxy) = duplex(QUERY.len());
        let mut far = tokio::io::join(says, hears);
        to_proxy.write_all(&answer(10)).await.unwrap();
        client.write_all(QUERY).await.unwrap();
        let mut tracker = ProtocolTracker::default();
        let mut relay = pin!(relay(&mut near, &mut far, BytesMut::new(), &mut tracker));
        assert!(once(&mut relay).await.is_pending());
        client.write_all(&[COPY_DATA, TERMINATE].concat()).await.unwrap();
        assert!(once(&mut relay).await.is_pending(), "the relay ended before the server had the query");
        let (mut received, mut heard) = (vec![0; answer(10).len()], vec![0; QUERY.len()]);
        client.read_exact(&mut received).await.unwrap();
        from_proxy.read_exact(&mut heard).await.unwrap();
        assert!(once(&mut relay).await.is_pending(), "the relay ended inside of a message");
        let mut heard = vec![0; COPY_DATA.len()];
        let (ended, read) = tokio::join!(relay, from_proxy.read_exact(&mut heard));
        assert!(matches!(ended, RelayOutcome::ClosedByClient), "{ended:?}");
        assert_eq!((read.unwrap(), &*heard), (COPY_DATA.len(), COPY_DATA));
    }

    #[tokio::test]
    async fn a_client_that_goes_without_its_answer_leaves_the_session_as_it_is() {
        let (mut client, mut near) = duplex(100);
        let (mut far, mut server) = duplex(1 << 20);
        server.write_all(&answer(10_000)).await.unwrap();
        client.write_all(QUERY).await.unwrap();
        let mut tracker = ProtocolTracker::default();
        {
            let mut relay = pin!(relay(&mut near, &mut far, BytesMut::new(), &mut tracker));
            assert!(once(&mut relay).await.is_pending());
            client.write_all(TERMINATE).await.unwrap();
            drop(client);
            assert!(matches!(relay.await, RelayOutcome::ClosedByClient));
        }
        assert!(tracker.ended_idle());
    }

    /// A server that sends these bytes, and whose connection then breaks.
    struct Breaks(&'static [u8]);

    impl AsyncRead for Breaks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buf.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_last_words_of_a_server_whose_connection_breaks_are_delivered() {
        let (mut client, near) = duplex(1024);
        let mut near = BufStream::new(near);
        let mut server = tokio::io::join(Breaks(b"last words"), tokio::io::sink());
        let relay =
            tokio::spawn(async move { relay(&mut near, &mut server, BytesMut::new(), &mut AsIs).await });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last words");
        drop(client);
        assert!(matches!(relay.await.unwrap(), RelayOutcome::ServerIo(_)));
    }

    #[test]
    fn what_flows_takes_no_memory_that_is_not_there_already() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (mut client, mut near) = tokio::net::UnixStream::pair().unwrap();
        let (mut server, mut far) = tokio::net::UnixStream::pair().unwrap();
        let mut as_is = AsIs;
        let mut relay = pin!(relay(&mut near, &mut far, BytesMut::new(), &mut as_is));
        let mut round_trips = |times| {
            let used = allocation_counter::measure(|| {
                runtime.block_on(async {
                    let round_trips = async {
                        for _ in 0..times {
                            let mut received = [0; 5];
                            client.write_all(b"query").await.unwrap();
                            server.read_exact(&mut received).await.unwrap();
                            server.write_all(b"reply").await.unwrap();
                            client.read_exact(&mut received).await.unwrap();
                        }
                    };
                    tokio::select! {
                        _ = &mut relay => unreachable!("no side hung up"),
                        () = round_trips => {}
                    }
                });
            });
            used.count_total
        };
        // The first sessions fill the thread's store of buffers.
        round_trips(10);
        assert_eq!(round_trips(1000), round_trips(1));
    }

    /// A client that always has more to send, and also reads.
    struct Flood {
        sent: usize,
        heard: Vec<u8>,
    }

    impl AsyncRead for Flood {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.sent += buf.remaining();
            buf.put_slice(&vec![b'x'; buf.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.heard.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_until_a_client_that_never_pauses_does() {
        let mut client = Flood { sent: 0, heard: Vec::new() };
        // A server that discards all input, and has sent these bytes already.
        let (mut says, said) = duplex(1024);
        says.write_all(b"an error").await.unwrap();
        let mut server = tokio::io::join(said, tokio::io::sink());
        let mut as_is = AsIs;
        {
            let mut relay = pin!(relay(&mut client, &mut server, BytesMut::new(), &mut as_is));
            assert!(poll_fn(|cx| Poll::Ready(relay.as_mut().poll(cx))).await.is_pending());
        }
        assert_eq!(client.heard, b"an error");
        assert!(client.sent <= TURN + BUFFER, "{} bytes first", client.sent);
    }

    #[tokio::test]
    async fn no_buffer_is_held_while_nothing_flows() {
        let (mut source, mut relayed) = duplex(1024);
        let (mut sink, mut delivered) = duplex(1024);
        let mut pipe = Pipe::new(BytesMut::new());
        source.write_all(b"hello").await.unwrap();
        let polled = poll_fn(|cx| Poll::Ready(pipe.poll(cx, &mut relayed, &mut sink, &mut AsIs))).await;
        assert!(polled.is_pending());
        assert_eq!(pipe.buf.capacity(), 0);
        let mut received = [0; 5];
        delivered.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"hello");
    }
}
