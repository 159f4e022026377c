//! From a name to an open TCP connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{ConnectError, ConnectErrorKind};
use crate::look_up::look_up;
use crate::target::{HostSpec, KeepAlive, Target};

/// An address that has not answered after this time gets company by the next one: the "Connection Attempt Delay" that
/// RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);

/// The first of several that was reached.
pub(crate) struct Dialed<T> {
    pub(crate) stream: T,
    pub(crate) address: SocketAddr,
    /// When the dial of this address began; the dials of others began earlier.
    pub(crate) began: Instant,
    /// The addresses that have not failed: those that were not dialled yet, or had not answered.
    pub(crate) others: Vec<SocketAddr>,
}

/// The addresses of an endpoint, as the resolver orders them.
pub(crate) async fn addresses(endpoint: &HostSpec, limit: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = endpoint.address {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    let host = &endpoint.host;
    let failed = |message: String| {
        ConnectError::new(ConnectErrorKind::Dns, message).hinting(
            "is the name spelled right? The name of a server in a private network resolves inside that network only",
        )
    };
    match timeout(limit, look_up(host)).await {
        Ok(Ok(addresses)) => {
            let mut addresses = addresses.to_vec();
            addresses.iter_mut().for_each(|address| address.set_port(endpoint.port));
            if addresses.is_empty() { Err(failed(format!("{host} has no address"))) } else { Ok(addresses) }
        }
        Ok(Err(error)) => {
            let cause = io::Error::new(error.kind(), error);
            Err(failed(format!("the name {host} cannot be resolved")).because(cause))
        }
        Err(_) => Err(failed(format!("the name {host} was not resolved within {limit:?}"))),
    }
}

/// Dials the addresses of one name until one answers: the next begins when the one before it has failed, or has not
/// answered within [`STAGGER`]. The others are hung up on before a byte was sent. The error is that of the last to fail.
///
/// The families take turns, the resolver's favourite first, so that a family without a route costs one delay (RFC 8305,
/// "Happy Eyeballs").
pub(crate) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<Dialed<T>, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let mut waiting = VecDeque::from(take_turns(addresses));
    let mut dials = FuturesUnordered::new();
    let mut pending = Vec::new();
    let mut last = None;
    loop {
        match waiting.pop_front() {
            Some(address) => {
                let (began, dialled) = (Instant::now(), dial(address));
                pending.push(address);
                dials.push(async move { (address, began, dialled.await) });
            }
            None if dials.is_empty() => {
                return Err(last.unwrap_or_else(|| ConnectError::config("no address is known")));
            }
            None => {}
        }
        tokio::select! {
            biased;
            Some((address, began, dialled)) = dials.next() => {
                pending.retain(|other| *other != address);
                match dialled {
                    Ok(stream) => {
                        let others = pending.into_iter().chain(waiting).collect();
                        return Ok(Dialed { stream, address, began, others });
                    }
                    Err(error) => {
                        tracing::debug!(%address, %error, "not reached");
                        last = Some(error);
                    }
                }
            }
            () = sleep(STAGGER), if !waiting.is_empty() => {}
        }
    }
}

/// One address of the favourite's family, one of the other, and so on.
fn take_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let favourite = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == favourite);
    let mut turns = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = turns.len();
        turns.extend(first.next().into_iter().chain(second.next()));
        if turns.len() == before {
            return turns;
        }
    }
}

/// Opens a connection that sends at once and notices a dead peer.
pub(crate) async fn dial(
    address: SocketAddr,
    watch: Watch,
    limit: Duration,
) -> Result<TcpStream, ConnectError> {
    let opened = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        watch.over(&stream)?;
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

/// Socket options that detect a peer that is gone: keep-alive and the user timeout.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    keep_alive: Option<KeepAlive>,
    user_timeout: Option<Duration>,
}

impl Watch {
    pub(crate) fn of(target: &Target) -> Self {
        Self { keep_alive: target.keep_alive(), user_timeout: target.user_timeout() }
    }

    fn over(self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        if let Some(KeepAlive { idle, interval, count }) = self.keep_alive {
            let settings = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
            socket.set_tcp_keepalive(&settings)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn refused(address: SocketAddr) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Tcp, format!("no connection to {address}"))
    }

    /// A dial that answers by port: 1 never, 2 refuses, 3 at once, 4 after a second.
    async fn by_port(address: SocketAddr) -> Result<SocketAddr, ConnectError> {
        match address.port() {
            1 => pending().await,
            2 => Err(refused(address)),
            3 => Ok(address),
            _ => {
                sleep(Duration::from_secs(1)).await;
                Ok(address)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_answers_first_is_taken() {
        for (about, names, winner, milliseconds) in [
            ("the favourite", &["10.0.0.1:3", "10.0.0.2:3"][..], "10.0.0.1:3", 0),
            ("a silent one costs a delay", &["10.0.0.1:1", "10.0.0.2:3"], "10.0.0.2:3", 250),
            ("a refusal costs none", &["10.0.0.1:2", "10.0.0.2:2", "10.0.0.3:3"], "10.0.0.3:3", 0),
            ("a slow one may still win", &["10.0.0.1:4", "10.0.0.2:1"], "10.0.0.1:4", 1000),
            ("families take turns", &["[::1]:1", "[::2]:1", "10.0.0.1:3"], "10.0.0.1:3", 250),
        ] {
            let began = Instant::now();
            let reached = race(addresses(names), by_port).await.unwrap();
            assert_eq!(reached.address, winner.parse().unwrap(), "{about}");
            assert_eq!(began.elapsed(), Duration::from_millis(milliseconds), "{about}");
            assert!(reached.began >= began, "{about}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_refusals_make_one_and_each_address_is_dialled_once() {
        let dialled = Mutex::new(Vec::new());
        let names = addresses(&["10.0.0.1:2", "10.0.0.2:2"]);
        let error = race(names.clone(), |address| {
            dialled.lock().unwrap().push(address);
            by_port(address)
        });
        let error = error.await.map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "no connection to 10.0.0.2:2");
        assert_eq!(*dialled.lock().unwrap(), names);
        assert_eq!(race(Vec::new(), by_port).await.map(|_| ()).unwrap_err().kind(), ConnectErrorKind::Config);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_failed_is_left() {
        for (names, left) in [
            (&["10.0.0.1:3", "10.0.0.2:3"][..], &["10.0.0.2:3"][..]),
            (&["10.0.0.1:2", "10.0.0.2:3"], &[]),
            (&["10.0.0.1:1", "10.0.0.2:3", "10.0.0.3:2"], &["10.0.0.1:1", "10.0.0.3:2"]),
        ] {
            let reached = race(addresses(names), by_port).await.unwrap();
            assert_eq!(reached.others, addresses(left), "{names:?}");
        }
    }

    #[test]
    fn families_take_turns() {
        let turns = take_turns(addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]));
        assert_eq!(turns, addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]));
    }
}
