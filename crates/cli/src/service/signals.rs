//! The signals of a program that runs until it is stopped.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::problem::{Outcome, Problem};

/// Receives SIGHUP, SIGTERM and SIGINT.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM or SIGINT (Ctrl-C): shut down.
    Stop,
}

impl Signals {
    /// Installs handlers; from now on these signals do not end the process by themselves.
    pub(crate) fn listen() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| Problem::ours("cannot listen for signals", error));
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
