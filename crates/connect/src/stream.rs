//! Verified TLS over a stream, with buffers only while bytes flow.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Most bytes that are taken from the socket at a time.
const READ: usize = 128 * 1024;
/// Most bytes that are encrypted at a time: what one read can decrypt to, with the rest of a record before it.
const WRITE: usize = READ + 16 * 1024;
/// Room to encrypt so many bytes: each record of 16 KiB grows by less than 300 bytes (RFC 8446, section 5.2).
const SCRATCH: usize = WRITE + 16 * 1024;
/// Least bytes that are asked of the socket: a record (RFC 8446, section 5.2).
const RECORD: usize = 16 * 1024 + 256 + 5;
/// Longest handshake message that is waited for, as in rustls' own buffers.
const HANDSHAKE: usize = 0xffff + RECORD;

/// Bytes that are asked for during the handshake: most certificate chains fit.
const HANDSHAKE_READ: usize = 4096;
/// Room for a `close_notify` record, which is smaller.
const FAREWELL: usize = 256;

thread_local! {
    /// Where records are encrypted and decrypted, for all connections of a thread in turn.
    static THREADS_SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection to a server over verified TLS.
///
/// An idle connection holds no buffer. A read takes up to 128 KiB from the socket in one go and gives all of it to a
/// reader that has room for 144 KiB; one that has less gets the rest with its next reads. A write encrypts at once and hands
/// over as much as the socket takes; flush to be sure of the rest. Both are cancel-safe. As with any TLS, a peer that ends
/// the connection without `close_notify` is [`io::ErrorKind::UnexpectedEof`].
pub struct TlsStream<S> {
    io: S,
    tls: UnbufferedClientConnection,
    /// The beginning of a record whose rest has not come.
    incoming: Vec<u8>,
    /// Decrypted and not read yet: the reader had no room.
    plaintext: BytesMut,
    /// Encrypted and not written yet: the socket had no room.
    outgoing: BytesMut,
    /// The peer has sent `close_notify`.
    ended: bool,
    /// `close_notify` was sent: nothing may be written after it.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands with the server called `name`, whose certificate `config` verifies.
    pub(crate) async fn connect(
        io: S,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        let (plaintext, outgoing) = (BytesMut::new(), BytesMut::new());
        let mut this =
            Self { io, tls, incoming: Vec::new(), plaintext, outgoing, ended: false, closed: false };
        loop {
            let stepped = this.step();
            // Also after an error: it is an alert that tells the server why.
            if !this.outgoing.is_empty() {
                let outgoing = std::mem::take(&mut this.outgoing);
                let sent = async {
                    this.io.write_all(&outgoing).await?;
                    this.io.flush().await
                };
                let sent = sent.await;
                if stepped.is_ok() {
                    sent?;
                }
            }
            match stepped.map_err(invalid)? {
                HandshakeStep::Ready => break,
                HandshakeStep::Again => {}
                HandshakeStep::Receive if this.ended || this.incoming.len() > HANDSHAKE => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the handshake was not finished",
                    ));
                }
                HandshakeStep::Receive => {
                    this.incoming.reserve(HANDSHAKE_READ);
                    if this.io.read_buf(&mut this.incoming).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        this.incoming.shrink_to_fit();
        Ok(this)
    }

    /// The transport below TLS. Reading from it or writing to it directly breaks the session.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// Whether all received bytes have been read, without a partial record, and the peer has not sent `close_notify`.
    /// Bytes in the socket's buffer are not considered.
    pub fn is_drained(&self) -> bool {
        self.incoming.is_empty() && self.plaintext.is_empty() && !self.ended
    }

    /// What the handshake negotiated: version, cipher suite, peer certificates.
    pub(crate) fn agreed(&self) -> &CommonState {
        &self.tls
    }

    /// Processes one step of the handshake, or of messages after it.
    fn step(&mut self) -> Result<HandshakeStep, rustls::Error> {
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut self.outgoing);
                Ok(HandshakeStep::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(HandshakeStep::Again)
            }
            // A server may speak first (RFC 8446, section 4.4.4).
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    self.plaintext.extend_from_slice(record?.payload);
                }
                Ok(HandshakeStep::Again)
            }
            Ok(ConnectionState::WriteTraffic(_)) => Ok(HandshakeStep::Ready),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                self.ended = true;
                Ok(HandshakeStep::Receive)
            }
            Ok(_) => Ok(HandshakeStep::Receive),
            Err(error) => Err(error),
        };
        self.incoming.drain(..discard);
        // After an error the next step yields the alert for the server.
        if step.is_err()
            && let Ok(ConnectionState::EncodeTlsData(data)) =
                self.tls.process_tls_records(&mut self.incoming).state
        {
            encode(data, &mut self.outgoing);
        }
        step
    }

    /// Decrypts the complete records at the front of `ciphertext` and returns their length in bytes.
    fn decrypt(&mut self, ciphertext: &mut [u8], out: &mut ReadBuf<'_>) -> Result<usize, rustls::Error> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut ciphertext[done..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let payload = record?.payload;
                        let fits =
                            if self.plaintext.is_empty() { out.remaining().min(payload.len()) } else { 0 };
                        let (now, later) = payload.split_at(fits);
                        out.put_slice(now);
                        self.plaintext.extend_from_slice(later);
                    }
                }
                // A KeyUpdate response or an alert; it is sent with the next write.
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(_) => return Ok(done + discard),
                Err(error) => {
                    let rest = &mut ciphertext[done + discard..];
                    if let Ok(ConnectionState::EncodeTlsData(data)) = self.tls.process_tls_records(rest).state
                    {
                        encode(data, &mut self.outgoing);
                    }
                    return Err(error);
                }
            }
            done += discard;
        }
    }

    /// Lets `work` encrypt something, behind whatever has to be sent before it.
    fn encrypt(
        &mut self,
        mut work: impl FnMut(&mut WriteTraffic<'_, ClientConnectionData>) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let encrypted = match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => Some(work(&mut traffic)),
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.outgoing);
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    None
                }
                // `incoming` never holds a complete record here.
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            self.incoming.drain(..discard);
            if let Some(encrypted) = encrypted {
                return encrypted.map_err(io::Error::other);
            }
        }
    }

    /// Writes what is encrypted already.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.outgoing.advance(written),
            }
            if self.outgoing.is_empty() {
                self.outgoing = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the socket until there is something for the reader.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        while out.filled().len() == before && !self.ended {
            let held = self.incoming.len();
            // rustls leaves a handshake message of several records in `incoming` until it is complete.
            let room = out.remaining().clamp(RECORD, READ).min(scratch.len().saturating_sub(held));
            if room == 0 {
                let message = "a message of the handshake that does not end";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            let mut received = ReadBuf::new(&mut scratch[held..held + room]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut received))?;
            let received = received.filled().len();
            if received == 0 {
                self.ended = true;
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            scratch[..held].copy_from_slice(&self.incoming);
            let ciphertext = &mut scratch[..held + received];
            // If `outgoing` is not empty, a writer may be registered for the socket's write readiness. A poll from the read
            // half would replace its waker.
            let nobody_writes = self.outgoing.is_empty();
            let done = self.decrypt(ciphertext, out);
            if nobody_writes {
                let _ = self.poll_push(cx)?;
            }
            let rest = &ciphertext[done.map_err(invalid)?..];
            self.incoming.clear();
            if rest.is_empty() {
                self.incoming = Vec::new();
            } else {
                self.incoming.extend_from_slice(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.plaintext.is_empty() {
            let length = this.plaintext.len().min(buf.remaining());
            buf.put_slice(&this.plaintext[..length]);
            this.plaintext.advance(length);
            if this.plaintext.is_empty() {
                this.plaintext = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        with_scratch(|scratch| this.poll_fill(cx, buf, scratch))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // No more is encrypted than the socket takes.
        ready!(this.poll_push(cx))?;
        let data = &buf[..buf.len().min(WRITE)];
        with_scratch(|scratch| {
            let length = this.encrypt(|traffic| traffic.encrypt(data, scratch))?;
            let mut encrypted = &scratch[..length];
            // A KeyUpdate is encrypted with the old keys, so it is sent before data under the new keys.
            if this.outgoing.is_empty() {
                while !encrypted.is_empty() {
                    match Pin::new(&mut this.io).poll_write(cx, encrypted)? {
                        Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(written) => encrypted = &encrypted[written..],
                        Poll::Pending => break,
                    }
                }
            }
            this.outgoing.extend_from_slice(encrypted);
            Poll::Ready(Ok(data.len()))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_push(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            let mut farewell = [0; FAREWELL];
            let length = this.encrypt(|traffic| traffic.queue_close_notify(&mut farewell))?;
            this.outgoing.extend_from_slice(&farewell[..length]);
        }
        ready!(this.poll_push(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The next action of the handshake.
#[derive(Debug)]
enum HandshakeStep {
    Again,
    Receive,
    Ready,
}

/// Lends the thread's scratch. A stream over a stream of this kind gets one of its own.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = THREADS_SCRATCH.take();
    scratch.resize(SCRATCH, 0);
    let result = work(&mut scratch);
    THREADS_SCRATCH.set(scratch);
    result
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut BytesMut) {
    let start = out.len();
    let mut room = 0;
    // The first try fails with the size that is needed.
    while let Err(EncodeError::InsufficientSize(insufficient)) = data.encode(&mut out[start..]) {
        if insufficient.required_size <= room {
            break;
        }
        room = insufficient.required_size;
        out.resize(start + room, 0);
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{DuplexStream, duplex};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream as Server;

    use super::*;

    /// Both ends of one connection over a pipe that holds so many bytes.
    async fn pair(pipe: usize) -> (TlsStream<DuplexStream>, Server<DuplexStream>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let versions = rustls::DEFAULT_VERSIONS;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = client
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut server =
            server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        // The test does not read the tickets, which would fill the pipe.
        server.send_tls13_tickets = 0;
        let (near, far) = duplex(pipe);
        let name = ServerName::try_from("localhost").unwrap();
        let accepted = TlsAcceptor::from(Arc::new(server)).accept(far);
        let (client, server) = tokio::join!(TlsStream::connect(near, Arc::new(client), name), accepted);
        (client.unwrap(), server.unwrap())
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    /// More than any buffer, over a pipe that takes little of it at a time, with new keys on the way.
    #[tokio::test]
    async fn everything_comes_through_whatever_the_pieces() {
        for (pipe, piece) in [(50, 7), (1000, 100_000), (40_000, 1000), (1_000_000, 300_000)] {
            let length = if pipe < 100 { 60_000 } else { 700_000 };
            let (client, server) = pair(pipe).await;
            let (mut from_server, mut to_server) = tokio::io::split(client);
            let echo = async move {
                let (mut server, mut received) = (server, Vec::new());
                let mut buf = vec![0; piece];
                while received.len() < length {
                    let read = server.read(&mut buf).await.unwrap();
                    assert_ne!(read, 0, "it ends early");
                    received.extend_from_slice(&buf[..read]);
                    if received.len() > length / 2 && received.len() - read <= length / 2 {
                        server.get_mut().1.refresh_traffic_keys().unwrap();
                    }
                    server.write_all(&buf[..read]).await.unwrap();
                    server.flush().await.unwrap();
                }
                assert_eq!(server.read(&mut buf).await.unwrap(), 0, "TLS's own end");
                server.shutdown().await.unwrap();
                received
            };
            let send = async {
                for part in bytes(length).chunks(piece) {
                    to_server.write_all(part).await.unwrap();
                    to_server.flush().await.unwrap();
                }
                to_server.shutdown().await.unwrap();
            };
            let receive = async {
                let mut received = Vec::new();
                from_server.read_to_end(&mut received).await.unwrap();
                received
            };
            let (there, (), back) = tokio::join!(echo, send, receive);
            assert!(there == bytes(length), "towards the server, pipe {pipe}");
            assert!(back == bytes(length), "back from it, pipe {pipe}");
        }
    }

    #[tokio::test]
    async fn nothing_is_held_while_nothing_flows() {
        let (mut client, mut server) = pair(100_000).await;
        server.write_all(b"hello, and what does not fit").await.unwrap();
        server.flush().await.unwrap();
        let mut first = [0; 5];
        client.read_exact(&mut first).await.unwrap();
        assert!(!client.is_drained(), "the rest waits");
        let mut rest = [0; 23];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b", and what does not fit");
        assert!(client.is_drained());
        let held = client.incoming.capacity() + client.plaintext.capacity() + client.outgoing.capacity();
        assert_eq!(held, 0);
    }

    #[tokio::test]
    async fn an_end_without_a_word_is_told_from_one_in_good_order() {
        let (mut client, mut server) = pair(100_000).await;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
        assert!(!client.is_drained(), "a closed connection must not be reused");
        let (mut client, server) = pair(100_000).await;
        drop(server);
        let error = client.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_changed_record_is_an_error() {
        let (mut client, server) = pair(100_000).await;
        let (mut below, _tls) = server.into_inner();
        // A record of application data that no key of this connection made.
        below.write_all(b"\x17\x03\x03\x00\x20").await.unwrap();
        below.write_all(&[7; 32]).await.unwrap();
        let error = client.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}
