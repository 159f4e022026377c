//! A client's connection, from its first byte to its start-up packet.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use pgentra_wire::backend::{BackendMessage, NegotiateProtocolVersion};
use pgentra_wire::fields::Fields;
use pgentra_wire::startup::{
    ALPN, CancelRequest, FirstPacket, ProtocolVersion, StartupMessage, is_direct_tls,
};
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::DuplexStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::auth_message::fill;
use super::login_error::{LoginError, fatal, sqlstate};
use super::presence::Early;
use super::starting::silent;

/// The newest version of the protocol that clients may speak with us. The server behind is spoken to in 3.0: they differ
/// in the length of cancel keys, which are ours.
const NEWEST: ProtocolVersion = ProtocolVersion::V3_2;
/// The codes of requests for encryption (PostgreSQL documentation, "Message Formats"), as versions.
const SSL_REQUEST: ProtocolVersion = ProtocolVersion { major: 1234, minor: 5679 };
const GSSENC_REQUEST: ProtocolVersion = ProtocolVersion { major: 1234, minor: 5680 };
/// How long a client may take to read its last message and hang up.
const FAREWELL: Duration = Duration::from_secs(2);
/// A client that vanished without a word is noticed by probes after this time of silence.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The time between those probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A client's connection.
pub struct Client<S: Socket = TcpStream> {
    transport: Transport<S>,
    address: S::Address,
    /// What the client has sent before it was asked for: see [`Client::while_present`].
    pub(super) early: Early,
}

enum Transport<S> {
    Plain(S),
    /// Kept here while it goes on, so that whoever gives up waiting can still go on with it to say why.
    Handshake(Box<Accept<S>>),
    Tls(Box<TlsStream<S>>),
    /// The handshake failed.
    Broken,
}

/// What a client comes in by.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// Who is at the other end, as a log names it.
    type Address: Copy + Display + Send + Sync + Unpin;
    /// Whether others may read along, so that TLS has a place on it.
    const IS_NETWORK: bool;

    /// Whose mistakes count together.
    fn origin(address: &Self::Address) -> Origin;

    /// Sets what a long session needs. A system that refuses these options still carries the session.
    fn prepare(&self);

    /// Whether this client may have what the listener is for: on this machine its owner and these users may.
    fn is_trusted(_: &Self::Address, _users: &[u32]) -> bool {
        true
    }

    /// Waits until something was received, or the client is gone. What was received stays.
    fn speaks(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits for the first byte and says whether it begins a TLS handshake; the byte stays.
    fn begins_with_tls(&self) -> impl Future<Output = io::Result<bool>> + Send;
}

/// A network connection inside a test, whose time is the test's.
impl Socket for DuplexStream {
    type Address = SocketAddr;
    const IS_NETWORK: bool = true;

    fn origin(address: &SocketAddr) -> Origin {
        Origin::network(address.ip())
    }

    fn prepare(&self) {}

    async fn speaks(&self) -> io::Result<()> {
        Ok(())
    }

    async fn begins_with_tls(&self) -> io::Result<bool> {
        Ok(false)
    }
}

impl Socket for TcpStream {
    type Address = SocketAddr;
    const IS_NETWORK: bool = true;

    fn origin(address: &SocketAddr) -> Origin {
        Origin::network(address.ip())
    }

    fn prepare(&self) {
        let _ = self.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
        let _ = SockRef::from(self).set_tcp_keepalive(&keepalive);
    }

    async fn speaks(&self) -> io::Result<()> {
        self.peek(&mut [0]).await.map(|_| ())
    }

    async fn begins_with_tls(&self) -> io::Result<bool> {
        let mut first = [0];
        let length = self.peek(&mut first).await?;
        is_direct_tls(&first[..length]).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Where clients come from that are taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An address of version 4, or a network of version 6.
    Network(IpAddr),
    /// A user of this machine.
    User(Option<u32>),
}

impl Origin {
    /// The first 64 bits of an address of version 6: the rest is its owner's to choose (RFC 4291 section 2.5.4).
    pub fn network(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

/// What a client wants.
#[derive(Debug)]
pub enum Opening {
    /// A session, with these parameters.
    Startup(StartupMessage),
    /// That the statement of another session is cancelled.
    Cancel(CancelRequest),
}

impl<S: Socket> Client<S> {
    /// A client that was accepted, before anything was read. Sets the socket's options for a long session.
    pub fn new(stream: S, address: S::Address) -> Self {
        stream.prepare();
        Self { transport: Transport::Plain(stream), address, early: Early::default() }
    }

    /// The address or user id of the client's end.
    pub fn address(&self) -> S::Address {
        self.address
    }

    /// Whether it is its listener's owner, or one of these users of this machine, or not of this machine.
    pub fn is_trusted(&self, users: &[u32]) -> bool {
        S::is_trusted(&self.address, users)
    }

    /// Whose mistakes count together.
    pub fn origin(&self) -> Origin {
        S::origin(&self.address)
    }

    /// The client's own certificate, which the handshake has checked.
    pub fn peer_certificate(&self) -> Option<CertificateDer<'_>> {
        match &self.transport {
            Transport::Tls(stream) => {
                stream.get_ref().1.peer_certificates()?.first().map(|it| (&**it).into())
            }
            _ => None,
        }
    }

    /// Whether the connection is inside TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Waits until something was received, or the client is gone. To be called before anything was read.
    pub async fn speaks(&self) -> io::Result<()> {
        match &self.transport {
            Transport::Plain(stream) => stream.speaks().await,
            _ => Ok(()),
        }
    }

    /// Goes through the requests for encryption to the packet that says what the client wants. What PostgreSQL would not
    /// answer is [`LoginError::Unanswered`].
    ///
    /// TLS begins either at once, when it must agree on the protocol `postgresql` by ALPN, or after an SSLRequest. GSSAPI
    /// encryption is declined, as is TLS inside of TLS. Exactly the bytes of each packet are read, so nothing that was sent in the clear can pass
    /// for something sent inside TLS (CVE-2021-23214). Without `tls` an SSLRequest is declined, and a client that begins
    /// with TLS is left, as it reads nothing else.
    ///
    /// The first packet has to be there by `first`.
    pub async fn open(&mut self, tls: Option<&TlsAcceptor>, first: Instant) -> Result<Opening, LoginError> {
        if self.begins_with_tls().await? {
            let tls = tls.ok_or_else(|| io::Error::other("direct TLS where none is offered"))?;
            self.handshake(tls).await?;
            if !self.agreed_on_postgresql() {
                return Err(LoginError::Disconnected(io::Error::other(
                    "direct TLS without the ALPN protocol postgresql",
                )));
            }
        }
        // PostgreSQL takes each request once, and a further one for a protocol version, which it does not speak.
        let (mut tls_asked, mut gss_asked) = (false, false);
        let mut packet = timeout_at(first, self.first_packet()).await.unwrap_or_else(|_| Err(silent()))?;
        loop {
            match packet {
                FirstPacket::Startup(start) => return Ok(Opening::Startup(start)),
                FirstPacket::Cancel(cancel) => return Ok(Opening::Cancel(cancel)),
                FirstPacket::SslRequest if !tls_asked => {
                    tls_asked = true;
                    match tls {
                        Some(tls) if !self.is_encrypted() => {
                            gss_asked = true;
                            self.write_all(b"S").await?;
                            self.handshake(tls).await?;
                        }
                        _ => self.decline().await?,
                    }
                }
                FirstPacket::GssEncRequest if !gss_asked => {
                    gss_asked = true;
                    self.decline().await?;
                }
                FirstPacket::SslRequest => return Err(unsupported(SSL_REQUEST).into()),
                FirstPacket::GssEncRequest => return Err(unsupported(GSSENC_REQUEST).into()),
                FirstPacket::Unsupported(version) => return Err(unsupported(version).into()),
            }
            packet = self.first_packet().await?;
        }
    }

    /// Tells a client that wants more than we speak how much we speak.
    pub async fn negotiate(&mut self, start: &StartupMessage) -> Result<(), LoginError> {
        if start.version() <= NEWEST && start.protocol_options().next().is_none() {
            return Ok(());
        }
        let newest = start.version().min(NEWEST);
        let answer = NegotiateProtocolVersion::new(newest, start.protocol_options())?;
        self.send(&BackendMessage::NegotiateProtocolVersion(answer)).await
    }

    /// Sends one message and waits until it is written out.
    pub async fn send(&mut self, message: &BackendMessage) -> Result<(), LoginError> {
        let mut out = BytesMut::new();
        message.encode(&mut out)?;
        self.write_all(&out).await?;
        Ok(self.flush().await?)
    }

    /// Hangs up in good order, within a bounded time: libpq takes TLS that ends without a word for a failure.
    pub async fn close(mut self) {
        let farewell = async {
            self.shutdown().await?;
            linger(&mut self).await
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// Sends the last message and hangs up, within a bounded time. What fails here has nobody to be told to.
    pub async fn tell(self, fields: Fields) {
        self.tell_within(FAREWELL, fields).await;
    }

    /// The same without waiting for the client: what the system does not take at once is not sent.
    pub async fn tell_at_once(self, fields: Fields) {
        self.tell_within(Duration::ZERO, fields).await;
    }

    async fn tell_within(mut self, limit: Duration, fields: Fields) {
        let farewell = async {
            self.finish_handshake().await?;
            let mut out = BytesMut::new();
            BackendMessage::ErrorResponse(fields).encode(&mut out).map_err(io::Error::other)?;
            self.write_all(&out).await?;
            self.shutdown().await?;
            linger(&mut self).await
        };
        let _ = tokio::time::timeout(limit, farewell).await;
    }

    /// Reads what comes next, past what was kept.
    pub(super) fn poll_transport(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Handshake(_) | Transport::Broken => Poll::Ready(Err(no_transport())),
        }
    }

    async fn decline(&mut self) -> io::Result<()> {
        self.write_all(b"N").await?;
        self.flush().await
    }

    async fn begins_with_tls(&mut self) -> io::Result<bool> {
        match &self.transport {
            Transport::Plain(stream) => stream.begins_with_tls().await,
            _ => Ok(false),
        }
    }

    async fn handshake(&mut self, tls: &TlsAcceptor) -> io::Result<()> {
        self.transport = match std::mem::replace(&mut self.transport, Transport::Broken) {
            Transport::Plain(stream) => Transport::Handshake(Box::new(tls.accept(stream))),
            other => other,
        };
        self.finish_handshake().await
    }

    /// Cancel-safe: it can be taken up again.
    async fn finish_handshake(&mut self) -> io::Result<()> {
        let Transport::Handshake(handshake) = &mut self.transport else {
            return Ok(());
        };
        let (transport, result) = match handshake.await {
            Ok(stream) => (Transport::Tls(Box::new(stream)), Ok(())),
            Err(error) => (Transport::Broken, Err(error)),
        };
        self.transport = transport;
        result
    }

    fn agreed_on_postgresql(&self) -> bool {
        match &self.transport {
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(ALPN),
            _ => false,
        }
    }

    async fn first_packet(&mut self) -> Result<FirstPacket, LoginError> {
        let mut received = BytesMut::new();
        loop {
            if let Some(packet) = FirstPacket::decode(&mut received)? {
                return Ok(packet);
            }
            // The decoder has compared the length with its limits.
            let whole = received.first_chunk().map_or(4, |length| u32::from_be_bytes(*length) as usize);
            fill(self, &mut received, whole).await?;
        }
    }
}

/// The configuration for TLS with what this protocol needs on top of it.
pub fn acceptor(config: &rustls::ServerConfig) -> TlsAcceptor {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Reads and forgets until the peer hangs up: to close a connection while unread bytes are there would make the system
/// drop what the peer has not read yet. The caller bounds the time.
pub async fn linger(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut ignored = [0; 512];
    while stream.read(&mut ignored).await? != 0 {}
    Ok(())
}

impl<S: Socket> AsyncRead for Client<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return this.poll_transport(cx, buf);
        }
        this.early.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Client<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Handshake(_) | Transport::Broken => Poll::Ready(Err(no_transport())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Handshake(_) | Transport::Broken => Poll::Ready(Err(no_transport())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Handshake(_) | Transport::Broken => Poll::Ready(Err(no_transport())),
        }
    }
}

fn no_transport() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the TLS handshake was not completed")
}

fn unsupported(version: ProtocolVersion) -> Fields {
    let message = format!("unsupported frontend protocol {version}: server supports 3.0 to 3.2");
    fatal(sqlstate::FEATURE_NOT_SUPPORTED, &message)
}
