//! Why a local cloud could not start.

use std::net::IpAddr;

use crate::keys::KeyError;
use pgentra_certificates::CertificateError;

/// A local cloud could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address to listen on can be reached from outside this machine.
    #[error("{0} is not a loopback address, and a local cloud listens on no other")]
    NotLoopback(IpAddr),
    /// A port is taken, or the process may not use it, or the address is not on this machine.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address and port of the listening socket.
        address: std::net::SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The crypto library could not make a signing key.
    #[error("cannot make the keys of the tenant")]
    Keys(#[from] KeyError),
    /// The local certificate authority could not be made.
    #[error("cannot make the certificates of the endpoints")]
    Certificates(#[from] CertificateError),
}
