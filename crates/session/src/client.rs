//! A client's connection, from its first byte to its start-up packet.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use pgentra_wire::WireError;
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
use super::early::Early;
use super::login_error::{LoginError, fatal, silent, sqlstate};

/// The newest protocol version offered to clients. The upstream connection uses 3.0: the versions
/// differ in the length of cancel keys only, and the client's key is made here.
const NEWEST: ProtocolVersion = ProtocolVersion::V3_2;
/// The codes of requests for encryption (PostgreSQL documentation, "Message Formats"), as versions.
const SSL_REQUEST: ProtocolVersion = ProtocolVersion { major: 1234, minor: 5679 };
const GSSENC_REQUEST: ProtocolVersion = ProtocolVersion { major: 1234, minor: 5680 };
/// How long a client may take to read its last message and hang up.
const FAREWELL: Duration = Duration::from_secs(2);
/// Silence after which TCP keep-alive probes begin, to notice a client that lost its network.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The time between two keep-alive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A client's connection, in clear text or TLS.
pub struct Client<S: Socket = TcpStream> {
    transport: Transport<S>,
    address: S::Address,
    /// Bytes that the client sent before it was asked for them: see [`Client::while_present`].
    pub(super) early: Early,
}

enum Transport<S> {
    Plain(S),
    /// Kept here while the handshake runs, so that a caller whose deadline ends can still finish it
    /// and send the error.
    Handshake(Box<Accept<S>>),
    Tls(Box<TlsStream<S>>),
    /// The TLS handshake failed; the connection cannot be used any more.
    Broken,
}

/// A transport that clients connect over: TCP, or a Unix socket.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// The peer's address, as it appears in logs.
    type Address: Copy + Display + Send + Sync + Unpin;
    /// Whether the transport is a network that others can read, so that TLS makes sense on it.
    const IS_NETWORK: bool;

    /// The origin under which limits count this peer.
    fn origin(address: &Self::Address) -> ClientOrigin;

    /// Sets the socket options for long sessions. Failure is ignored: the session works without
    /// them.
    fn prepare(&self);

    /// Whether the peer may connect. On a Unix socket: the owner of the listener and these user
    /// ids.
    fn is_trusted(_: &Self::Address, _users: &[u32]) -> bool {
        true
    }

    /// Whether the peer is not on the loopback interface or a Unix socket: another machine may have
    /// this address.
    fn is_remote(address: &Self::Address) -> bool;

    /// Waits until bytes were received or the client has hung up. The bytes stay in the socket.
    fn speaks(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits for the first byte and says whether it begins a TLS handshake; the byte stays.
    fn begins_with_tls(&self) -> impl Future<Output = io::Result<bool>> + Send;
}

/// An in-memory connection for tests, which works with tokio's paused clock.
impl Socket for DuplexStream {
    type Address = SocketAddr;
    const IS_NETWORK: bool = true;

    fn origin(address: &SocketAddr) -> ClientOrigin {
        ClientOrigin::network(address.ip())
    }

    fn prepare(&self) {}

    fn is_remote(address: &SocketAddr) -> bool {
        is_beyond_loopback(address)
    }

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

    fn origin(address: &SocketAddr) -> ClientOrigin {
        ClientOrigin::network(address.ip())
    }

    fn prepare(&self) {
        let _ = self.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
        let _ = SockRef::from(self).set_tcp_keepalive(&keepalive);
    }

    fn is_remote(address: &SocketAddr) -> bool {
        is_beyond_loopback(address)
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

fn is_beyond_loopback(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// The unit of clients that limits count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientOrigin {
    /// An IPv4 address, or an IPv6 /64.
    Network(IpAddr),
    /// A user id of this machine; `None` if the system does not report it.
    User(Option<u32>),
}

impl ClientOrigin {
    /// The origin of a network address: the address for IPv4, the first 64 bits for IPv6, because
    /// the owner of a network chooses the rest (RFC 4291 section 2.5.4).
    pub fn network(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

/// The client's first request.
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

    /// Whether the peer is on the network, or is the listener's owner or one of these users of this
    /// machine.
    pub fn is_trusted(&self, users: &[u32]) -> bool {
        S::is_trusted(&self.address, users)
    }

    /// Whether the peer may be another machine.
    pub fn is_remote(&self) -> bool {
        S::is_remote(&self.address)
    }

    /// The origin under which limits count this client.
    pub fn origin(&self) -> ClientOrigin {
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

    /// The name of the server in the client's TLS handshake (SNI).
    pub fn server_name(&self) -> Option<&str> {
        match &self.transport {
            Transport::Tls(stream) => stream.get_ref().1.server_name(),
            _ => None,
        }
    }

    /// Whether the connection is inside TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Waits until bytes were received or the client has hung up. Call it before anything was read.
    pub async fn speaks(&self) -> io::Result<()> {
        match &self.transport {
            Transport::Plain(stream) => stream.speaks().await,
            _ => Ok(()),
        }
    }

    /// Answers requests for encryption and reads the packet with the client's request. A packet
    /// that PostgreSQL would not answer gives [`LoginError::Unanswered`].
    ///
    /// TLS begins either at once, when it must agree on the protocol `postgresql` by ALPN, or after
    /// an SSLRequest. GSSAPI encryption is declined, as is TLS inside of TLS. Exactly the bytes of
    /// each packet are read, so that nothing sent in clear text is taken for TLS content
    /// (CVE-2021-23214). Without `tls` an SSLRequest is declined, and the connection of a client
    /// that begins with TLS is closed, because it could not read an error.
    ///
    /// The first packet must arrive before `first`.
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
        // PostgreSQL accepts each request once; it takes a second one for an unsupported protocol
        // version.
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

    /// Sends NegotiateProtocolVersion to a client that asks for a newer version or for protocol
    /// options.
    pub async fn negotiate(&mut self, start: &StartupMessage) -> Result<(), LoginError> {
        if start.version() <= NEWEST && start.protocol_options().next().is_none() {
            return Ok(());
        }
        let newest = start.version().min(NEWEST);
        let answer = NegotiateProtocolVersion::new(newest, start.protocol_options())?;
        self.send(&BackendMessage::NegotiateProtocolVersion(answer)).await
    }

    /// Sends one message and flushes it.
    pub async fn send(&mut self, message: &BackendMessage) -> Result<(), LoginError> {
        let mut out = BytesMut::new();
        message.encode(&mut out)?;
        self.write_all(&out).await?;
        Ok(self.flush().await?)
    }

    /// Closes the connection with a TLS close_notify, within a bounded time: libpq reports TLS
    /// without it as an error.
    pub async fn close(mut self) {
        let farewell = async {
            self.shutdown().await?;
            linger(&mut self).await
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// Sends the last message and closes the connection, within a bounded time. Errors are ignored:
    /// the client cannot be reached.
    pub async fn tell(self, fields: Fields) {
        self.tell_within(FAREWELL, fields).await;
    }

    /// The same without waiting for the client: bytes that the system does not accept at once are
    /// not sent.
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

    /// Reads from the transport; bytes kept by [`Client::while_present`] are not returned.
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
            // The decoder has already checked the length against its limits.
            let whole = received.first_chunk().map_or(4, |length| u32::from_be_bytes(*length) as usize);
            fill(self, &mut received, whole).await?;
        }
    }
}

/// The start-up for the server: the client's own, as `role`. Protocol options were answered to the
/// client ([`Client::negotiate`]) and are left out.
pub fn server_start(start: &StartupMessage, role: &[u8]) -> Result<StartupMessage, WireError> {
    let start = start.clone().without(|name| name.starts_with(b"_pq_."));
    start.with_version(ProtocolVersion::V3_0).with("user", role)
}

/// Builds a TLS acceptor from this configuration and adds the ALPN protocol `postgresql`.
pub fn acceptor(config: &rustls::ServerConfig) -> TlsAcceptor {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Reads and discards until the peer hangs up. Closing a socket with unread bytes makes the system
/// send a reset, and the peer would lose the last message. The caller bounds the time.
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
