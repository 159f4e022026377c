//! Accepting connections, and the stages of a shutdown.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pgentra_wire::fields::Fields;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Socket;
use super::login_error::LoginError;
use super::starting::{Seat, Starting};

/// The length of the accept queue. More than any system has by default: Linux limits it to its
/// `net.core.somaxconn` (4,096). A TCP client that finds the queue full gets no answer and retries
/// after a second (listen(2)).
pub(super) const BACKLOG: u32 = 65_535;
/// A server ends a terminated session at once; after this time the session is dropped.
const TERMINATION: Duration = Duration::from_secs(5);
/// Pause of accepting when the system has no file handles left; connections that end meanwhile free
/// some.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Listens on a TCP address, with as many connections waiting to be accepted as the system allows. Must be called on a
/// tokio runtime.
///
/// # Errors
/// The error of the system call that failed.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // With this option a restarted proxy can bind its address although old connections are in
    // TIME_WAIT. Windows needs no option for that; there this one would let another program bind
    // the same address.
    if cfg!(not(windows)) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The stages of a shutdown. Each follows the one before.
#[derive(Clone, Default)]
pub struct Shutdown {
    /// No new sessions are accepted.
    pub drain: CancellationToken,
    /// The drain time is over, or was cut short.
    pub hurry: CancellationToken,
    /// The sessions that are left are asked to end.
    pub terminate: CancellationToken,
    /// The tasks that are left are dropped.
    pub kill: CancellationToken,
}

impl Shutdown {
    /// No stage is reached yet; the first begins with `shutdown`.
    pub fn until(shutdown: CancellationToken) -> Self {
        Self { drain: shutdown, ..Self::default() }
    }

    /// Runs a login to its end. When the first stage begins, the login ends with the error
    /// `shutting_down`. `None`: the last stage is reached, and the connection is to be dropped.
    pub async fn during<T>(
        &self,
        login: impl Future<Output = Result<T, LoginError>>,
        shutting_down: fn() -> Fields,
    ) -> Option<Result<T, LoginError>> {
        tokio::select! {
            biased;
            () = self.kill.cancelled() => None,
            ended = login => Some(ended),
            () = self.drain.cancelled() => Some(Err(shutting_down().into())),
        }
    }

    /// Runs the stages after the first until no task is left. Sessions have `drain` to end by
    /// themselves, or until `hurry` is cancelled.
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

/// A listening socket.
pub trait Listen {
    /// An accepted connection.
    type Socket: Socket;

    /// The listener's name in logs.
    fn name(&self) -> String;

    /// Accepts the next connection. Cancel-safe.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Socket, Address<Self>)>> + Send;
}

/// The peer address of a listener's connections.
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

/// Accepts the next connection; `None` once the shutdown has begun.
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
