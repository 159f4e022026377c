//! A signed-in stream, for whoever relays.

use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use pgentra_wire::backend::BackendKeyData;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cancel::Canceller;
use crate::handshake::Ready;
use crate::session::TlsInfo;

/// A session that is signed in and ready, as a stream over verified TLS: for whoever relays. Dropping it ends it.
pub struct SignedIn<S = TcpStream> {
    pub(crate) stream: TlsStream<S>,
    pub(crate) ready: Ready,
    pub(crate) tls: TlsInfo,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) canceller: Option<Canceller>,
    pub(crate) token_expires_on: SystemTime,
}

impl<S> SignedIn<S> {
    /// What the server has said already: AuthenticationOk, its settings, its cancel key, ReadyForQuery, and whatever came
    /// right behind.
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

    /// What TLS was agreed on.
    pub fn tls(&self) -> &TlsInfo {
        &self.tls
    }

    /// The address that was reached; `None` over a stream that somebody else opened.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// When the token ends that the session was opened with. The session goes on; whoever gives it to somebody else
    /// afterwards gives more than a new sign-in would.
    pub fn token_expires_on(&self) -> SystemTime {
        self.token_expires_on
    }

    /// The stream behind what was said.
    pub fn into_stream(self) -> TlsStream<S> {
        self.stream
    }

    pub(crate) fn reached_at(mut self, address: SocketAddr) -> SignedIn<S> {
        self.address = Some(address);
        self.canceller = self.canceller.map(|canceller| canceller.at(address));
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
