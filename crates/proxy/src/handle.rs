//! Which injector a listener's clients get.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::AuthProxy;
use super::auth::Attempts;
use super::upstream::Cancel;
use crate::session_limit::SessionLimit;
use pgentra_session::cancel::CancelTable;

/// The injector that the next client of a listener gets: it can be replaced while clients are served. Clones are one.
#[derive(Clone, Debug)]
pub struct ProxyHandle(watch::Sender<Arc<AuthProxy>>);

/// What injectors have in common that follow one another: the cancel keys of their sessions, who gave wrong passwords, and how
/// many sessions there are, which counts for the limit of each. Clones are one; the default is a new one.
#[derive(Clone, Default)]
pub struct SharedState {
    pub(crate) cancel: CancelTable<Cancel>,
    /// Sessions with the server: those of clients, those that are being opened and those that wait for a client.
    pub(crate) sessions: SessionLimit,
    /// Clients that have a session.
    pub(crate) clients: SessionLimit,
    pub(crate) attempts: Arc<Attempts>,
}

impl ProxyHandle {
    /// This one, for now.
    pub fn new(proxy: Arc<AuthProxy>) -> Self {
        Self(watch::Sender::new(proxy))
    }

    /// Gives the clients that come from now on to `proxy`. Whoever is signing in or has a session stays where it is. Its
    /// cancel key is good for as long as both injectors have the same [`SharedState`].
    pub fn replace(&self, proxy: Arc<AuthProxy>) {
        self.0.send_replace(proxy);
    }

    /// The one of this moment.
    pub fn get(&self) -> Arc<AuthProxy> {
        Arc::clone(&self.0.borrow())
    }

    /// Changes with each [`ProxyHandle::replace`] from now on.
    pub(crate) fn replaced(&self) -> watch::Receiver<Arc<AuthProxy>> {
        self.0.subscribe()
    }
}

impl SharedState {
    /// How many clients have a session.
    pub fn sessions(&self) -> usize {
        self.clients.taken()
    }

    /// Whether they are one.
    pub fn is(&self, other: &Self) -> bool {
        self.sessions.is(&other.sessions)
    }
}

impl fmt::Debug for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}
