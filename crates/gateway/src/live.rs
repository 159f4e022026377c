//! The open sessions, for the status page.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgentra_verify::Principal;
use tokio::time::Instant;

/// An open session.
#[derive(Debug)]
pub(crate) struct OpenSession {
    pub(crate) server: String,
    pub(crate) client: SocketAddr,
    pub(crate) role: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) application_name: Option<String>,
    /// The owner of the token; `None` for a session that began with a password.
    pub(crate) principal: Option<Principal>,
    pub(crate) backend_pid: u32,
    pub(crate) began: Instant,
}

/// The open sessions by their number, which grows: the oldest is the first.
#[derive(Debug, Default)]
pub(crate) struct LiveSessions(Mutex<BTreeMap<u64, Arc<OpenSession>>>);

impl LiveSessions {
    pub(crate) fn begin(&self, number: u64, session: OpenSession) {
        self.sessions().insert(number, Arc::new(session));
    }

    pub(crate) fn end(&self, number: u64) {
        self.sessions().remove(&number);
    }

    /// The oldest ones, at most `limit`, and the number of the others.
    pub(crate) fn first(&self, limit: usize) -> (Vec<Arc<OpenSession>>, usize) {
        let sessions = self.sessions();
        let shown: Vec<_> = sessions.values().take(limit).cloned().collect();
        let others = sessions.len() - shown.len();
        (shown, others)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OpenSession>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
