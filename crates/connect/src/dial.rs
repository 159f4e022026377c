//! From a name to an open TCP connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::error::{ConnectError, ConnectErrorKind};
use crate::target::{Endpoint, KeepAlive};

/// A name with more addresses than this is not tried to its end.
const ADDRESSES_LIMIT: usize = 16;

/// The addresses of an endpoint, as the resolver orders them.
pub(crate) async fn addresses(endpoint: &Endpoint, limit: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = endpoint.address {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    let host = &endpoint.host;
    let failed = |message: String| {
        ConnectError::new(ConnectErrorKind::Dns, message).hinting(
            "is the name spelled right? The name of a server in a private network resolves inside that network only",
        )
    };
    match timeout(limit, lookup_host((host.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_LIMIT).collect();
            if addresses.is_empty() { Err(failed(format!("{host} has no address"))) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(failed(format!("the name {host} cannot be resolved")).because(error)),
        Err(_) => Err(failed(format!("the name {host} was not resolved within {limit:?}"))),
    }
}

/// Opens a connection that sends at once and notices a dead peer.
pub(crate) async fn dial(
    address: SocketAddr,
    keep_alive: Option<KeepAlive>,
    limit: Duration,
) -> Result<TcpStream, ConnectError> {
    let opened = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if let Some(keep_alive) = keep_alive {
            watch(&stream, keep_alive)?;
        }
        Ok::<_, io::Error>(stream)
    };
    match timeout(limit, opened).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            Err(ConnectError::new(ConnectErrorKind::Tcp, format!("no connection to {address}"))
                .because(error)
                .hinting("is the server running, and are host and port right?"))
        }
        Err(_) => {
            Err(ConnectError::new(ConnectErrorKind::Timeout, format!("{address} did not answer within {limit:?}"))
                .hinting("a firewall drops the packets, most likely: allow this machine's address in the server's firewall rules, or connect from inside its network"))
        }
    }
}

fn watch(stream: &TcpStream, keep_alive: KeepAlive) -> io::Result<()> {
    let settings = TcpKeepalive::new()
        .with_time(keep_alive.idle)
        .with_interval(keep_alive.interval)
        .with_retries(keep_alive.count);
    SockRef::from(stream).set_tcp_keepalive(&settings)
}
