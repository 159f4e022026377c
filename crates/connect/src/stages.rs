//! What one stage of a connection hands to the next.

use std::fmt;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::stream::TlsStream;
use crate::tls_info::TlsInfo;

/// Verified TLS with a server that has not been told yet who comes. Dropping it closes the connection.
pub struct Secured<S = TcpStream> {
    pub(crate) stream: TlsStream<S>,
    pub(crate) host: String,
    pub(crate) tls: TlsInfo,
    /// How long the handshake took.
    pub(crate) took: Duration,
}

impl<S> Secured<S> {
    /// The negotiated TLS version and cipher suite.
    pub fn tls(&self) -> &TlsInfo {
        &self.tls
    }
}

impl<S> fmt::Debug for Secured<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("host", &self.host).field("tls", &self.tls).finish_non_exhaustive()
    }
}
