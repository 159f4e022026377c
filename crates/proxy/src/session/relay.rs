//! Bytes from one side to the other and back, until one side is done.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::client::linger;

/// Bytes that one direction takes at a time: as much as TLS gives in one go. Held only while bytes flow, so an idle session
/// costs none of it.
const BUFFER: usize = 144 * 1024;
/// Buffers that a thread keeps for the next bytes that flow: two directions, and some sessions whose other side is slow. More
/// than these come from the allocator and go back to it.
const KEPT: usize = 4;
/// Bytes after which a direction that never runs dry lets the other one have its turn: what a server says in the midst of a
/// long COPY, an error as a rule, is not to wait until the client pauses.
const TURN: usize = 4 * BUFFER;
/// How long a client may take to hang up once the server has.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// The buffers that no session of this thread holds.
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Changes what a client sends to the server, and sees what the server sends.
pub(crate) trait Rewrite {
    /// Gets what was received and leaves what is to be sent. It may hold bytes back until more came.
    fn rewrite(&mut self, bytes: &mut BytesMut);

    /// Gets what the server has sent.
    fn see(&mut self, _: &[u8]) {}

    /// The client has hung up.
    fn hang_up(&mut self) {}

    /// Whether the client has left a session that is to stay: the relay ends, and neither side is told.
    fn stays(&self) -> bool {
        false
    }
}

/// Changes nothing.
pub(crate) struct AsIs;

impl Rewrite for AsIs {
    fn rewrite(&mut self, _: &mut BytesMut) {}
}

/// What the server sends is seen, and not changed.
struct Seen<'a, R>(&'a mut R);

impl<R: Rewrite> Rewrite for Seen<'_, R> {
    fn rewrite(&mut self, bytes: &mut BytesMut) {
        self.0.see(bytes);
    }
}

/// Relays until the server hangs up, the client leaves a session that [`stays`](Rewrite::stays), or one side breaks. `first` is what the server has sent already.
///
/// A client that closes only its sending side still gets its answers. A server that hangs up ends the session after its
/// last bytes were delivered. An error says which side broke; a session that ended in good order has none, and says which
/// side hung up first.
///
/// Not cancel-safe: dropped, it loses what it holds; close both sides then.
pub(crate) async fn relay<C, S>(
    client: &mut C,
    server: &mut S,
    first: BytesMut,
    rewrite: &mut impl Rewrite,
) -> Result<Side, Broken>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Pipe::new(BytesMut::new());
    let mut down = Pipe::new(first);
    poll_fn(|cx| {
        match up.poll(cx, client, server, rewrite) {
            Poll::Ready(Err(Broken::Source(error))) => return Poll::Ready(Err(Broken::Source(error))),
            Poll::Ready(Ok(())) if rewrite.stays() => return Poll::Ready(Ok(())),
            // The server does not listen any more, but what it said last is still to be delivered.
            Poll::Ready(Err(Broken::Sink(_)) | Ok(())) | Poll::Pending => {}
        }
        match ready!(down.poll(cx, server, client, &mut Seen(rewrite))) {
            Ok(()) => Poll::Ready(Ok(())),
            // The sides of this direction are the other way round.
            Err(Broken::Source(error)) => Poll::Ready(Err(Broken::Sink(error))),
            Err(Broken::Sink(error)) => Poll::Ready(Err(Broken::Source(error))),
        }
    })
    .await?;
    if rewrite.stays() {
        return Ok(Side::Client);
    }
    let first_to_go = if up.state == State::Done { Side::Client } else { Side::Server };
    // The session is over; a client that does not hang up is not waited for any longer.
    let _ = Box::pin(tokio::time::timeout(LINGER, linger(client))).await;
    Ok(first_to_go)
}

/// One side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Which side broke, seen from the direction client to server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the client's connection broke")]
    Source(#[source] io::Error),
    #[error("the server's connection broke")]
    Sink(#[source] io::Error),
}

/// One direction.
struct Pipe {
    buf: BytesMut,
    state: State,
    unflushed: bool,
}

#[derive(PartialEq)]
enum State {
    Flowing,
    /// The source is at its end: what is left goes out, then the sink is told.
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
        rewrite: &mut impl Rewrite,
    ) -> Poll<Result<(), Broken>>
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
        rewrite: &mut impl Rewrite,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = 0;
        loop {
            while !self.buf.is_empty() {
                match ready!(Pin::new(&mut *sink).poll_write(cx, &self.buf)).map_err(Broken::Sink)? {
                    0 => return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into()))),
                    written => {
                        self.buf.advance(written);
                        moved += written;
                    }
                }
                self.unflushed = true;
            }
            if rewrite.stays() {
                return Poll::Ready(Ok(()));
            }
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.state == State::Ending {
                return Pin::new(sink).poll_shutdown(cx).map_err(Broken::Sink);
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
                // TLS that ends without a word: not every client takes its leave.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    rewrite.hang_up();
                    self.state = State::Ending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Source(error))),
                Poll::Pending => {
                    give_back(std::mem::take(&mut self.buf));
                    if self.unflushed {
                        ready!(Pin::new(sink).poll_flush(cx)).map_err(Broken::Sink)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// A buffer that nobody uses, or none to be filled yet.
fn lend() -> BytesMut {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_back(mut buf: BytesMut) {
    buf.clear();
    // Whoever rewrites may have taken a part of it away.
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    struct Ends {
        client: DuplexStream,
        server: DuplexStream,
        relay: tokio::task::JoinHandle<Result<Side, Broken>>,
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
            // The client has closed its sending side, and still gets its answer.
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
        assert_eq!(relay.await.unwrap().unwrap(), Side::Client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_hang_up_is_left() {
        let Ends { mut client, mut server, relay } = relayed(b"");
        server.write_all(b"goodbye").await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"goodbye");
        assert_eq!(relay.await.unwrap().unwrap(), Side::Server);
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
        relay.await.unwrap().unwrap();
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
                        _ = &mut relay => unreachable!("nobody hung up"),
                        () = round_trips => {}
                    }
                });
            });
            used.count_total
        };
        // The first ones fill the thread's store of buffers.
        round_trips(10);
        assert_eq!(round_trips(1000), round_trips(1));
    }

    /// A client that always has more to say, and hears as well.
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
        // A server that swallows whatever it gets, and has said this already.
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
