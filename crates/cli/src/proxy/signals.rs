//! What the process is told from outside.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::problem::{Outcome, Problem};

/// The signals that a proxy heeds.
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

/// What they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM, or SIGINT as Ctrl-C sends it: end.
    Stop,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    pub(crate) fn listen() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| Problem::ours("cannot listen for signals", error));
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.hangup.recv() => SignalEvent::Reload,
            _ = self.interrupt.recv() => SignalEvent::Stop,
            _ = self.terminate.recv() => SignalEvent::Stop,
        }
    }
}
