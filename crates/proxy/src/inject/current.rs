//! Which injector a listener's clients get.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::Injector;
use super::door::Attempts;
use super::upstream::Cancel;
use crate::session::cancel::CancelTable;
use crate::session::places::Places;

/// The injector that the next client of a listener gets: it can be replaced while clients are served. Clones are one.
#[derive(Clone, Debug)]
pub struct Current(watch::Sender<Arc<Injector>>);

/// What injectors have in common that follow one another: the cancel keys of their sessions, who gave wrong passwords, and how
/// many sessions there are, which counts for the limit of each. Clones are one; the default is a new one.
#[derive(Clone, Default)]
pub struct Shared {
    pub(crate) cancel: CancelTable<Cancel>,
    /// Sessions with the server: those of clients, those that are being opened and those that wait for a client.
    pub(crate) sessions: Places,
    /// Clients that have a session.
    pub(crate) clients: Places,
    pub(crate) attempts: Arc<Attempts>,
}

impl Current {
    /// This one, for now.
    pub fn new(injector: Arc<Injector>) -> Self {
        Self(watch::Sender::new(injector))
    }

    /// Gives the clients that come from now on to `injector`. Whoever is signing in or has a session stays where it is. Its
    /// cancel key is good for as long as both injectors have the same [`Shared`].
    pub fn replace(&self, injector: Arc<Injector>) {
        self.0.send_replace(injector);
    }

    /// The one of this moment.
    pub fn get(&self) -> Arc<Injector> {
        Arc::clone(&self.0.borrow())
    }

    /// Changes with each [`Current::replace`] from now on.
    pub(crate) fn replaced(&self) -> watch::Receiver<Arc<Injector>> {
        self.0.subscribe()
    }
}

impl Shared {
    /// How many clients have a session.
    pub fn sessions(&self) -> usize {
        self.clients.taken()
    }

    /// Whether they are one.
    pub fn is(&self, other: &Self) -> bool {
        self.sessions.is(&other.sessions)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}
