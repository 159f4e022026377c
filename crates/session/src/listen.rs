//! Accepting connections, and how that comes to its end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Socket;
use super::starting::{Seat, Starting};

/// How many connections may wait to be accepted. More than any system has by default: Linux takes its `net.core.somaxconn`
/// (4,096) instead, and a TCP client that finds the queue full is not answered and comes again after a second (listen(2)).
pub(super) const BACKLOG: u32 = 65_535;
/// A server ends a terminated session at once; beyond this it is cut off.
const TERMINATION: Duration = Duration::from_secs(5);
/// When the system has no file handles left, connections that end give some back: accepting waits so long for it.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Listens on a TCP address, with as many connections waiting to be accepted as the system allows. Must be called on a
/// tokio runtime.
///
/// # Errors
/// Whatever the system says.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A proxy that starts anew has its address again although connections of the one before linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How far a shutdown has come. Each stage follows the one before.
#[derive(Clone, Default)]
pub struct Shutdown {
    /// No new sessions.
    pub drain: CancellationToken,
    /// Sessions have no more time to end by themselves.
    pub hurry: CancellationToken,
    /// The sessions that are left are asked to end.
    pub terminate: CancellationToken,
    /// Whatever is left is dropped.
    pub kill: CancellationToken,
}

impl Shutdown {
    /// All of them still to come; the first with `shutdown`.
    pub fn until(shutdown: CancellationToken) -> Self {
        Self { drain: shutdown, ..Self::default() }
    }

    /// Goes through the stages after the first until no task is left. Sessions have `drain` to end by themselves, or until
    /// there is a hurry.
    pub async fn wind_up(&self, tasks: &TaskTracker, drain: Duration) {
        tasks.close();
        tokio::select! {
            () = tasks.wait() => return,
            () = tokio::time::sleep(drain) => {}
            () = self.hurry.cancelled() => {}
        }
        self.terminate.cancel();
        if tokio::time::timeout(TERMINATION, tasks.wait()).await.is_err() {
            self.kill.cancel();
            tasks.wait().await;
        }
    }
}

/// Where clients come in.
pub trait Listen {
    /// An accepted connection.
    type Socket: Socket;

    /// What it is called.
    fn name(&self) -> String;

    /// The next connection. Cancel-safe.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Socket, Address<Self>)>> + Send;
}

/// Who is at the other end of a connection.
pub type Address<L> = <<L as Listen>::Socket as Socket>::Address;

impl Listen for TcpListener {
    type Socket = TcpStream;

    fn name(&self) -> String {
        self.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// The next connection. `None`: no more are wanted.
pub async fn accept<L: Listen>(
    listener: &L,
    starting: &Starting,
    drain: &CancellationToken,
) -> Option<(L::Socket, Address<L>, Seat)> {
    let accepted = async {
        loop {
            match listener.next().await {
                Ok((stream, address)) => {
                    let seat = starting.enter(L::Socket::origin(&address));
                    return (stream, address, seat);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    starting.shed();
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = drain.cancelled() => None,
        accepted = accepted => Some(accepted),
    }
}
