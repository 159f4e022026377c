//! The sockets that clients connect to.

use pgentra_session::UnixSocket;
use tokio::net::TcpListener;

/// A listening socket for clients.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP socket. Every client that can reach it may connect, unless the [`ClientAuth`](crate::ClientAuth) asks for
    /// authentication: without that, bind it to the loopback interface.
    Tcp(TcpListener),
    /// A Unix socket. Clients of another user are refused, unless [`ClientAuth::uids`](crate::ClientAuth::uids) has them.
    Unix(UnixSocket),
}
