//! What successive auth proxies of one target share.

use std::fmt;
use std::sync::Arc;

use pgentra_session::attempts::Attempts;
use pgentra_session::cancel::CancelTable;

use crate::limits::SessionLimit;
use crate::upstream::Cancel;

/// What successive auth proxies of one target share: the cancel keys of their sessions, the wrong
/// passwords, and the number of sessions, which counts for the limit of each. Clones share one; the
/// default is a new one.
#[derive(Clone, Default)]
pub struct SharedState {
    pub(crate) cancel: CancelTable<Cancel>,
    /// Sessions with the server: those of clients, those that are being opened and those in the
    /// pool.
    pub(crate) sessions: SessionLimit,
    /// Clients that have a session.
    pub(crate) clients: SessionLimit,
    pub(crate) attempts: Arc<Attempts>,
}

impl SharedState {
    /// The number of clients that have a session.
    pub fn sessions(&self) -> usize {
        self.clients.taken()
    }

    /// Whether both are clones of one state.
    pub fn is(&self, other: &Self) -> bool {
        self.sessions.is(&other.sessions)
    }
}

impl fmt::Debug for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedState").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}
