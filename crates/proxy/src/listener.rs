//! The sockets that clients connect to.

use std::io;
use std::net::SocketAddr;

#[cfg(unix)]
use pgentra_session::UnixSocket;
use tokio::net::TcpListener;

use crate::auth::ClientAuth;

/// A listening socket for clients.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP socket: see [`Listener::tcp`].
    #[non_exhaustive]
    Tcp(TcpListener),
    /// A Unix socket, where the system has them. Clients of another user are refused, unless [`ClientAuth::uids`] has them.
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// Why a TCP socket cannot be a [`Listener`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// Clients of other machines reach it, and the client authentication lets them in without any proof.
    #[error(
        "other machines reach {0}, and the client authentication does not ask for TLS and a certificate or password"
    )]
    Unauthenticated(SocketAddr),
    /// Its address is not known.
    #[error("the address of the listener is not known")]
    Address(#[source] io::Error),
}

impl Listener {
    /// A TCP socket. On the loopback interface any client authentication will do. Beyond it,
    /// clients must authenticate over an encrypted connection
    /// ([`ClientAuth::requires_authentication`]), unless
    /// [`ClientAuth::danger_admit_unauthenticated`] is set.
    ///
    /// # Errors
    ///
    /// [`ListenerError::Unauthenticated`], where clients would have the identity's rights without any
    /// proof.
    pub fn tcp(listener: TcpListener, client_auth: &ClientAuth) -> Result<Self, ListenerError> {
        let address = listener.local_addr().map_err(ListenerError::Address)?;
        if address.ip().to_canonical().is_loopback() || client_auth.admits_other_machines() {
            Ok(Self::Tcp(listener))
        } else {
            Err(ListenerError::Unauthenticated(address))
        }
    }
}
