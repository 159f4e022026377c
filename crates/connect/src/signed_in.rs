//! A signed-in stream, for a proxy that relays it.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pgentra_wire::backend::BackendKeyData;
use tokio::net::TcpStream;

use crate::cancel::Canceller;
use crate::handshake::Ready;
use crate::stream::TlsStream;
use crate::tls_info::TlsInfo;
use crate::token_state::TokenIdentity;
use pgentra_wire::session_attrs::ServerState;

/// A session that is signed in and ready, as a stream over verified TLS, for a proxy that relays it. Dropping it closes
/// the connection.
pub struct SignedIn<S = TcpStream> {
    pub(crate) stream: TlsStream<S>,
    pub(crate) ready: Ready,
    pub(crate) tls: TlsInfo,
    pub(crate) host: Option<usize>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) state: Option<ServerState>,
    pub(crate) canceller: Option<Canceller>,
    pub(crate) token_expires_on: SystemTime,
    pub(crate) identity: Option<TokenIdentity>,
    pub(crate) timings: Timings,
}

/// How long each stage of a sign-in took, with everything that was tried before it succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Waiting for the token; almost zero if it is in the cache.
    pub token: Duration,
    /// Resolving the server's name; zero if `hostaddr` is given.
    pub dns: Duration,
    /// Opening the TCP connection, without the lookup of the server's name.
    pub dial: Duration,
    /// The TLS handshake, with PostgreSQL's request for it.
    pub tls: Duration,
    /// From the start-up packet to ReadyForQuery.
    pub sign_in: Duration,
}

impl<S> SignedIn<S> {
    /// The server's messages so far: AuthenticationOk, its settings, its cancel key, ReadyForQuery, and bytes that were
    /// received with them.
    pub fn said(&self) -> Bytes {
        self.ready.said.clone()
    }

    /// The server's own cancel key; `None` if it gave none.
    pub fn key(&self) -> Option<&BackendKeyData> {
        self.ready.key.as_ref()
    }

    /// What stops a statement of this session; `None` if the server gave no cancel key.
    pub fn canceller(&self) -> Option<Canceller> {
        self.canceller.clone()
    }

    /// The negotiated TLS version and cipher suite.
    pub fn tls(&self) -> &TlsInfo {
        &self.tls
    }

    /// Which of [`Target::endpoints`](crate::Target::endpoints) was reached; `None` over a stream that the caller opened.
    pub fn host(&self) -> Option<usize> {
        self.host
    }

    /// Whether the server was a standby at the sign-in, and whether its sessions only read; `None` if it did not report it
    /// and the target did not need to know.
    pub fn state(&self) -> Option<ServerState> {
        self.state
    }

    /// The address that was reached; `None` over a stream that the caller opened.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// When the token expires that the session was opened with. The session goes on. A proxy that gives it to another
    /// client after this time grants access that a new sign-in would refuse.
    pub fn token_expires_on(&self) -> SystemTime {
        self.token_expires_on
    }

    /// Whose token it is signed in with; `None` where the token cannot be read. Not verified by us: by the server.
    pub fn identity(&self) -> Option<&TokenIdentity> {
        self.identity.as_ref()
    }

    /// The durations of dial, TLS handshake and sign-in.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The stream after the messages of [`SignedIn::said`].
    pub fn into_stream(self) -> TlsStream<S> {
        self.stream
    }

    /// With this host, over a connection that took `reached` to open.
    pub(crate) fn reached_at(
        mut self,
        (host, address): (usize, SocketAddr),
        reached: Timings,
    ) -> SignedIn<S> {
        self.host = Some(host);
        self.address = Some(address);
        self.timings = Timings { dns: reached.dns, dial: reached.dial, ..self.timings };
        self.canceller = self.canceller.map(|canceller| canceller.at(address));
        self
    }

    pub(crate) fn waited_for_token(mut self, waited: Duration) -> SignedIn<S> {
        self.timings.token = waited;
        self
    }
}

impl<S> fmt::Debug for SignedIn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("tls", &self.tls)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
