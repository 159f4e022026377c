//! Linux, macOS and other Unix systems.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read as _, StdinLock};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::SignalEvent;
use crate::problem::{Outcome, Problem};

/// Raises the limit of open files to the user's maximum: each session needs two, and the default of
/// 1,024 is for programs that use select(2). Child processes inherit it.
pub(crate) fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "no more than {:?} files can be open", limit.current);
    }
}

/// Prevents core dumps, which would contain tokens and keys, and access by other processes of the
/// same user. Child processes are not affected.
#[cfg(target_os = "linux")]
pub(crate) fn leave_no_core_file() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a crash could leave a core file with a token in it");
    }
}

/// On other systems a core limit of zero bytes. Child processes inherit it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn leave_no_core_file() {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "a crash could leave a core file with a token in it");
    }
}

/// Cancelled at the first SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// The system does not let this process listen for signals.
pub(crate) fn stop_signal() -> Outcome<CancellationToken> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signal = listen(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signal.recv().await;
            stop.cancel();
        });
    }
    Ok(stop)
}

fn listen(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|error| Problem::ours("cannot listen for signals", error))
}

/// Receives SIGHUP, SIGTERM and SIGINT.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs handlers; from now on these signals do not end the process by themselves.
    ///
    /// # Errors
    /// The system does not let this process listen for signals.
    pub(crate) fn listen() -> Outcome<Self> {
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.hangup.recv() => SignalEvent::Reload,
            _ = self.interrupt.recv() => SignalEvent::Stop,
            _ = self.terminate.recv() => SignalEvent::Stop,
        }
    }
}

/// The terminal of standard input, without echo until this is dropped.
pub(crate) struct SilentTerminal {
    input: StdinLock<'static>,
    before: Option<Termios>,
}

impl SilentTerminal {
    /// Turns the echo off.
    pub(crate) fn begin() -> Self {
        let input = io::stdin().lock();
        let before = tcgetattr(&input).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(&input, OptionalActions::Flush, &silent);
        }
        Self { input, before }
    }

    /// Reads a line with its end, or `limit` bytes of a longer one.
    ///
    /// # Errors
    /// The terminal cannot be read.
    pub(crate) fn line(&mut self, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(Vec::with_capacity(limit));
        (&mut self.input).take(limit as u64).read_until(b'\n', &mut line)?;
        Ok(line)
    }
}

impl Drop for SilentTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.input, OptionalActions::Flush, before);
        }
    }
}

/// Makes a file that only its user can read.
///
/// # Errors
/// Those of the file system; a file of this name that is there already.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Waits until the names of the files in a folder are on the disk.
///
/// # Errors
/// Those of the file system.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The socket of the service manager (sd_notify(3)).
#[derive(Debug)]
pub(crate) struct ManagerSocket {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl ManagerSocket {
    /// Opens the socket of this name. A name that begins with `@` is in Linux's abstract namespace.
    ///
    /// # Errors
    /// The name cannot be that of a socket.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let to = match name.strip_prefix('@') {
            Some(name) => abstract_address(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read must not block clients.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to })
    }

    /// Sends a message, or fails at once.
    ///
    /// # Errors
    /// The service manager does not read, or has gone.
    pub(crate) fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.to).map(drop)
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The time on the clock that the service manager uses, since an arbitrary start.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}
