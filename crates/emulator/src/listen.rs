//! Which sockets are listened on: loopback, and the metadata service's own address where that is asked for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::error::StartError;

/// The metadata service's address on Azure.
pub(crate) const LINK_LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// How often another port is tried when the one that was free on 127.0.0.1 is taken on ::1.
const ATTEMPTS: usize = 16;

/// Sockets that share one port.
#[derive(Debug)]
pub(crate) struct BoundPort {
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) port: u16,
}

/// As [`bind`]; port 0 means `preferred` if that is free, and any free port otherwise.
pub(crate) async fn bind_preferred(
    address: IpAddr,
    port: u16,
    preferred: u16,
) -> Result<BoundPort, StartError> {
    if port == 0 && preferred != 0 {
        match bind(address, preferred).await {
            Err(StartError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                let bound = bind(address, 0).await?;
                tracing::warn!(
                    taken = preferred,
                    port = bound.port,
                    "a port is taken; another one serves in this run"
                );
                return Ok(bound);
            }
            other => return other,
        }
    }
    bind(address, port).await
}

/// Listens on `address`; for 127.0.0.1 also on ::1, since a client may take `localhost` for either and must not reach
/// the server of another process.
pub(crate) async fn bind(address: IpAddr, port: u16) -> Result<BoundPort, StartError> {
    let mut attempts = ATTEMPTS;
    loop {
        let first = listener((address, port).into()).await?;
        let local = first.local_addr().map_err(|source| failed((address, port).into(), source))?;
        if address != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return Ok(BoundPort { listeners: vec![first], port: local.port() });
        }
        let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, local.port()));
        match TcpListener::bind(twin).await {
            Ok(second) => return Ok(BoundPort { listeners: vec![first, second], port: local.port() }),
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {
                attempts -= 1;
                if port != 0 || attempts == 0 {
                    return Err(failed(twin, taken));
                }
            }
            // A machine without IPv6: no other process can listen on that address either.
            Err(_) => return Ok(BoundPort { listeners: vec![first], port: local.port() }),
        }
    }
}

/// Listens on 169.254.169.254 port 80.
pub(crate) async fn bind_link_local() -> Result<BoundPort, StartError> {
    Ok(BoundPort { listeners: vec![listener(LINK_LOCAL).await?], port: LINK_LOCAL.port() })
}

async fn listener(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| failed(address, source))
}

fn failed(address: SocketAddr, source: io::Error) -> StartError {
    StartError::Listen { address, source }
}
