//! The process outside the namespaces serves the sockets that were opened inside.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::handover::{receive, send};
use super::plan::{NamespacePlan, Reach, RelayTarget};
use super::refused::usage;
use crate::error::Failure;
use crate::host::Host;
use crate::status::Status;

/// Until the next try to accept a connection, after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What serves the namespaces of one program.
#[derive(Debug)]
pub struct Relay {
    plan: NamespacePlan,
    targets: Vec<RelayTarget>,
    published: Vec<(u16, StdListener)>,
    socket: RelaySocket,
}

/// A socket in the folder of the local cloud, removed when both ends have met or this is dropped.
#[derive(Debug)]
struct RelaySocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for RelaySocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Relay {
    /// Plans the namespaces of the program with this process id on `host` of a cloud, and listens on
    /// the ports that it publishes.
    ///
    /// # Errors
    /// If the cloud is not this host or is of another version, or a port is taken.
    pub fn open(
        status: &Status,
        host: Host,
        reached: &[Reach],
        (published, program): (&[u16], i32),
    ) -> Result<Self, Failure> {
        let (plan, targets) = NamespacePlan::new(status, host, reached)?;
        let listen = |port: &u16| match StdListener::bind((Ipv4Addr::LOCALHOST, *port)) {
            Ok(listener) => Ok((*port, listener)),
            Err(error) => {
                let message = format!("cannot listen on 127.0.0.1:{port}: {error}");
                Err(usage(message, "another program has the port: end it, or publish another port"))
            }
        };
        let published = published.iter().map(listen).collect::<Result<_, _>>()?;
        let path = status.folder.join(format!("run-{program}.sock"));
        let listener = UnixListener::bind(&path)
            .map_err(|error| Failure::machine("cannot open a socket in the local cloud's folder", error))?;
        Ok(Self { plan, targets, published, socket: RelaySocket { listener, path } })
    }

    /// What the namespaces contain.
    pub fn plan(&self) -> &NamespacePlan {
        &self.plan
    }

    /// Where the process in the namespaces hands its sockets over.
    pub fn socket(&self) -> &Path {
        &self.socket.path
    }

    /// Serves the connections of the program until it has `ended`.
    ///
    /// # Errors
    /// If the sockets cannot be handed over.
    pub async fn serve(self, ended: impl Future<Output = ()>) -> Result<(), Failure> {
        let Self { targets, published, socket, .. } = self;
        let mut ended = pin!(ended);
        let wants_connector = !published.is_empty();
        let met = tokio::task::spawn_blocking(move || meet(&socket, wants_connector));
        let met = tokio::select! {
            () = &mut ended => return Ok(()),
            met = met => met.map_err(lost)?.map_err(lost)?,
        };
        // It did not get into the namespaces, and says so itself.
        let Some((inner, connector)) = met else { return Ok(()) };
        for (number, socket) in inner.listeners {
            if let Some(target) = targets.get(usize::from(number)) {
                tokio::spawn(relay(listening(StdListener::from(socket)).map_err(lost)?, target.clone()));
            }
        }
        if let Some(connector) = connector {
            let connector = Arc::new(Mutex::new(connector));
            for (port, listener) in published {
                tokio::spawn(publish(listening(listener).map_err(lost)?, port, connector.clone()));
            }
        }
        send(&inner.stream, 0, None).map_err(lost)?;
        drop(inner.stream);
        ended.await;
        Ok(())
    }
}

fn lost(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::machine("cannot take the program's sockets", error)
}

/// Connects inside the namespaces to each port that the relay asks for, until the relay ends. A
/// socket belongs to the namespace of the process that opens it.
///
/// # Errors
/// If the relay has ended.
pub fn connect_inside(socket: &Path) -> Result<(), Failure> {
    let mut stream =
        UnixStream::connect(socket).map_err(|error| Failure::machine("cannot reach the relay", error))?;
    let mut port = [0; 2];
    while stream.read_exact(&mut port).is_ok() {
        let port = u16::from_be_bytes(port);
        let connected = StdStream::connect((Ipv4Addr::LOCALHOST, port))
            .or_else(|_| StdStream::connect((Ipv6Addr::LOCALHOST, port)));
        let sent = match &connected {
            Ok(connected) => send(&stream, 1, Some(connected)),
            Err(_) => send(&stream, 0, None),
        };
        if sent.is_err() {
            break;
        }
    }
    Ok(())
}

/// What the program's process has handed over.
struct Inner {
    stream: UnixStream,
    listeners: Vec<(u8, OwnedFd)>,
}

/// Takes the listeners of the namespaces, and then the connection of the connector if there is one.
/// `None`: the program's process has ended.
fn meet(socket: &RelaySocket, wants_connector: bool) -> std::io::Result<Option<(Inner, Option<UnixStream>)>> {
    let (stream, _) = socket.listener.accept()?;
    let mut listeners = Vec::new();
    loop {
        match receive(&stream)? {
            Some((number, Some(listener))) => listeners.push((number, listener)),
            // The number without a socket ends the list.
            Some((_, None)) => break,
            None => return Ok(None),
        }
    }
    let connector = wants_connector.then(|| socket.listener.accept()).transpose()?;
    Ok(Some((Inner { stream, listeners }, connector.map(|(stream, _)| stream))))
}

fn listening(listener: StdListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Leads each connection of the program to its target.
async fn relay(listener: TcpListener, target: RelayTarget) {
    loop {
        let mut near = accepted(&listener).await;
        let target = target.clone();
        tokio::spawn(async move {
            match TcpStream::connect((target.host.as_str(), target.port)).await {
                Ok(mut far) => drop(copy_bidirectional(&mut near, &mut far).await),
                Err(error) => tracing::warn!(host = target.host, port = target.port, %error, "not reached"),
            }
        });
    }
}

/// Leads each connection to a published port into the namespaces.
async fn publish(listener: TcpListener, port: u16, connector: Arc<Mutex<UnixStream>>) {
    loop {
        let mut near = accepted(&listener).await;
        let connector = connector.clone();
        tokio::spawn(async move {
            let far = tokio::task::spawn_blocking(move || connected(&connector, port)).await;
            let far = far.ok().flatten().and_then(|far| {
                far.set_nonblocking(true).ok()?;
                TcpStream::from_std(far).ok()
            });
            match far {
                Some(mut far) => drop(copy_bidirectional(&mut near, &mut far).await),
                None => tracing::warn!(port, "the program does not listen on the published port"),
            }
        });
    }
}

/// A connection to this port inside. `None`: the program does not listen there.
fn connected(connector: &Mutex<UnixStream>, port: u16) -> Option<StdStream> {
    let mut stream = connector.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(&port.to_be_bytes()).ok()?;
    let (_, socket) = receive(&stream).ok()??;
    socket.map(StdStream::from)
}

/// The next connection. After an error, such as too many open files, it is tried again.
pub(super) async fn accepted(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
