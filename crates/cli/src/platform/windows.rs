//! Windows. It has no service manager that listens on a socket, and no signal for a reload.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use console::Term;
use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::SignalEvent;
use crate::problem::{Outcome, Problem};

/// Nothing to raise: Windows sets no limit for a process.
pub(crate) fn allow_files() {}

/// Windows Error Reporting keeps a dump of a crash only where an administrator has set it up, and a
/// process cannot refuse it without unsafe code.
pub(crate) fn leave_no_core_file() {}

/// Ends this process with the exit code of another, which has 32 bits. An `ExitCode` has 8.
#[expect(clippy::disallowed_methods, reason = "the exit code of the program that this process stands for")]
pub(crate) fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// Cancelled at the first Ctrl-C or Ctrl-Break, or when the console or the system ends.
///
/// # Errors
/// The system does not let this process listen for console events.
pub(crate) fn stop_signal() -> Outcome<CancellationToken> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        stopped.cancel();
    });
    Ok(stop)
}

/// Receives the console events that ask a program to end.
pub(crate) struct Signals {
    interrupt: CtrlC,
    r#break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Signals {
    /// Installs handlers; from now on Ctrl-C and Ctrl-Break do not end the process by themselves.
    ///
    /// # Errors
    /// The system does not let this process listen for console events.
    pub(crate) fn listen() -> Outcome<Self> {
        Self::handlers().map_err(|error| Problem::ours("cannot listen for console events", error))
    }

    fn handlers() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            r#break: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.r#break.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
        SignalEvent::Stop
    }
}

/// The console, which does not show what is typed.
pub(crate) struct SilentTerminal(Term);

impl SilentTerminal {
    /// Takes the console of this process.
    pub(crate) fn begin() -> Self {
        Self(Term::stderr())
    }

    /// Reads a line with its end, or `limit` bytes of a longer one.
    ///
    /// # Errors
    /// Standard error is no console, or it cannot be read.
    pub(crate) fn line(&mut self, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        if !self.0.is_term() {
            return Err(io::Error::other("standard error is no console"));
        }
        let mut line = Zeroizing::new(self.0.read_secure_line()?.into_bytes());
        line.push(b'\n');
        line.truncate(limit);
        Ok(line)
    }
}

/// Makes a file. Its folder says who may read it.
///
/// # Errors
/// Those of the file system; a file of this name that is there already.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Nothing to wait for: Windows writes the names of files by itself.
///
/// # Errors
/// None.
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The socket of a service manager, which no Windows has.
#[derive(Debug)]
pub(crate) struct ManagerSocket(Infallible);

impl ManagerSocket {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn open(_: &str) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub(crate) fn send(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }
}

/// Zero: no service manager compares it.
pub(crate) fn monotonic() -> Duration {
    Duration::ZERO
}
