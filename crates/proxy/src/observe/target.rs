use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pgentra_connect::{ConnectError, Connector, Timings, TokenState};

use super::Observer;
use super::counts::{Cancelled, Counts, Supplied};

/// What can be seen of one target. Made by [`Observer::target`]; the default one is seen by nobody.
#[derive(Debug, Default)]
pub struct TargetObserver {
    name: String,
    process: Option<Observer>,
    pub(super) counts: Counts,
    connector: Mutex<Option<Connector>>,
    limit: AtomicUsize,
    listening: Mutex<Vec<String>>,
}

impl TargetObserver {
    /// What metrics and audit lines call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn new(name: &str, process: Observer) -> Self {
        Self { name: name.to_owned(), process: Some(process), ..Self::default() }
    }

    /// What opens its sessions from now on, and how many there may be at once.
    pub(crate) fn served_by(&self, connector: &Connector, limit: usize) {
        *self.connector.lock().unwrap_or_else(PoisonError::into_inner) = Some(connector.clone());
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A listener is up until what this returns is dropped.
    pub(crate) fn listens_on(self: &Arc<Self>, address: String) -> Listening {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).push(address.clone());
        Listening { target: Arc::clone(self), address }
    }

    /// A server session was opened.
    pub(crate) fn opened(&self, timings: Timings) {
        self.counts.opened(timings);
    }

    /// A server session could not be opened.
    pub(crate) fn failed(&self, error: &ConnectError) {
        self.counts.failed(error.kind());
    }

    /// A client asked to cancel a statement.
    pub(crate) fn cancelled(&self, how: Cancelled) {
        self.counts.cancelled(how);
    }

    /// Where the sessions of clients come from.
    pub(crate) fn supply(&self) -> &Supplied {
        &self.counts.supply
    }

    pub(super) fn process(&self) -> Option<&Observer> {
        self.process.as_ref()
    }

    pub(super) fn connector(&self) -> Option<Connector> {
        self.connector.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn token(&self) -> Option<TokenState> {
        self.connector().map(|connector| connector.token_state())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn listening(&self) -> Vec<String> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn readiness(&self, now: SystemTime) -> Result<(), String> {
        let name = &self.name;
        if self.listening().is_empty() {
            return Err(format!("no listener is up for {name}"));
        }
        match self.token() {
            Some(token) if token.expires_on.is_some_and(|expires_on| now < expires_on) => Ok(()),
            Some(TokenState { last_error: Some(error), .. }) => Err(format!("no token for {name}: {error}")),
            _ => Err(format!("no token yet for {name}")),
        }
    }
}

/// A listener that is up.
pub(crate) struct Listening {
    target: Arc<TargetObserver>,
    address: String,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listening = self.target.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = listening.iter().position(|address| *address == self.address) {
            listening.remove(at);
        }
    }
}
