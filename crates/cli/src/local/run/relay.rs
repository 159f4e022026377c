//! The process outside the namespaces: it serves the sockets that were opened inside, and ends with
//! the program.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use pgentra_local::inside::{self, Plan, RelayTarget};
use pgentra_local::{control, folder_of};
use pgentra_system::System;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::arguments::LocalRelay;
use super::report::RelayReport;
use super::this_program;
use crate::blame::Blame;
use crate::launch::end_of;
use crate::local::none_runs;
use crate::output;
use crate::problem::{Outcome, Problem};

/// The hidden command of this process.
pub(super) const COMMAND: &str = "local-relay";

/// What the relay has before the namespaces exist.
struct Prepared {
    plan: Plan,
    targets: Vec<RelayTarget>,
    published: Vec<(u16, StdListener)>,
    socket: Socket,
}

/// A socket in the folder of the local cloud, removed when both ends have met or this is dropped.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the connections of the program until it ends. The first process only starts a second one
/// and ends, so that the relay is no child of the program: a program that waits for all of its
/// children would wait for ever.
pub(crate) async fn serve(system: &System, arguments: LocalRelay) -> Outcome {
    if !arguments.detached {
        return again(system, &arguments);
    }
    let mut ended = pin!(end_of(arguments.program));
    let prepared = tokio::select! {
        () = &mut ended => return Ok(()),
        prepared = prepare(system, &arguments) => prepared,
    };
    let Prepared { plan, targets, published, socket } = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => {
            // The program's process shows it.
            say(&RelayReport::failed(&problem))?;
            return Err(problem.told());
        }
    };
    say(&RelayReport::Ready { plan, socket: socket.path.clone() })?;
    let wants_connector = !published.is_empty();
    let met = tokio::task::spawn_blocking(move || meet(&socket, wants_connector));
    let (inner, connector) = tokio::select! {
        () = &mut ended => return Ok(()),
        met = met => met.map_err(|error| Problem::ours("cannot meet the program", error))??,
    };
    for (number, socket) in inner.listeners {
        if let Some(target) = targets.get(usize::from(number)) {
            let listener = listening(StdListener::from(socket))?;
            tokio::spawn(relay(listener, target.clone()));
        }
    }
    if let Some(connector) = connector {
        let connector = Arc::new(Mutex::new(connector));
        for (port, listener) in published {
            tokio::spawn(publish(listening(listener)?, port, connector.clone()));
        }
    }
    inside::send(&inner.stream, 0, None).map_err(|error| Problem::ours("cannot reach the program", error))?;
    drop(inner.stream);
    ended.await;
    Ok(())
}

/// This command in a process that nobody waits for.
fn again(system: &System, arguments: &LocalRelay) -> Outcome {
    let LocalRelay { name, host, publish, reach, program, .. } = arguments;
    let mut command = this_program(system.env(), COMMAND)?;
    command
        .args(["--detached", "--name", &name.name, "--host", host.name()])
        .args(["--program", &program.to_string()]);
    for port in publish {
        command.args(["--publish", &port.to_string()]);
    }
    for reach in reach {
        command.args(["--reach", &reach.to_string()]);
    }
    command
        .stdout(Stdio::inherit())
        .spawn()
        .map(drop)
        .map_err(|error| Problem::ours("cannot start the relay", error))
}

fn say(report: &RelayReport) -> Outcome {
    let line = serde_json::to_string(report).map_err(|error| Problem::ours("cannot render JSON", error))?;
    output::exact(&format!("{line}\n"))
}

async fn prepare(system: &System, arguments: &LocalRelay) -> Outcome<Prepared> {
    let name = &arguments.name.name;
    let folder = folder_of(system.env(), name);
    let status = control::status(&folder).await?.ok_or_else(|| none_runs(name))?;
    let (plan, targets) = Plan::new(&status, arguments.host, &arguments.reach)?;
    let listen = |port: &u16| match StdListener::bind((Ipv4Addr::LOCALHOST, *port)) {
        Ok(listener) => Ok((*port, listener)),
        Err(error) => {
            let problem = Problem::new(Blame::Usage, format!("cannot listen on 127.0.0.1:{port}: {error}"));
            Err(problem.hint("another program has the port: end it, or publish another port"))
        }
    };
    let published = arguments.publish.iter().map(listen).collect::<Outcome<_>>()?;
    Ok(Prepared { plan, targets, published, socket: open(&folder, arguments.program)? })
}

fn open(folder: &Path, program: i32) -> Outcome<Socket> {
    let path = folder.join(format!("run-{program}.sock"));
    let listener = UnixListener::bind(&path).map_err(|error| Problem::ours("cannot open a socket", error))?;
    Ok(Socket { listener, path })
}

/// What the program's process has handed over.
struct Inner {
    stream: UnixStream,
    listeners: Vec<(u8, OwnedFd)>,
}

/// Takes the listeners of the namespaces, and then the connection of the connector if there is one.
fn meet(socket: &Socket, wants_connector: bool) -> Outcome<(Inner, Option<UnixStream>)> {
    let lost = |error| Problem::ours("cannot take the program's sockets", error);
    let (stream, _) = socket.listener.accept().map_err(lost)?;
    let mut listeners = Vec::new();
    // The number without a socket ends the list.
    while let Some((number, Some(listener))) = inside::receive(&stream).map_err(lost)? {
        listeners.push((number, listener));
    }
    let connector = wants_connector.then(|| socket.listener.accept().map_err(lost)).transpose()?;
    Ok((Inner { stream, listeners }, connector.map(|(stream, _)| stream)))
}

fn listening(listener: StdListener) -> Outcome<TcpListener> {
    listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
        .map_err(|error| Problem::ours("cannot serve a socket", error))
}

/// Leads each connection of the program to its target.
async fn relay(listener: TcpListener, target: RelayTarget) {
    while let Some(mut near) = accepted(&listener).await {
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
    while let Some(mut near) = accepted(&listener).await {
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
    let (_, socket) = inside::receive(&stream).ok()??;
    socket.map(StdStream::from)
}

/// The next connection; `None` when the listener cannot be used any more.
async fn accepted(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true);
            Some(stream)
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}
