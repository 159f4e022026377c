//! A handle to the auth proxy of a listener, which a reload can replace.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::AuthProxy;
use super::auth::Attempts;
use super::upstream::Cancel;
use crate::session_limit::SessionLimit;
use pgentra_session::cancel::CancelTable;

/// The auth proxy that the next client of a listener gets: it can be replaced while clients are
/// served. Clones share one.
#[derive(Clone, Debug)]
pub struct ProxyHandle(watch::Sender<Arc<AuthProxy>>);

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

impl ProxyHandle {
    /// A handle that begins with this proxy.
    pub fn new(proxy: Arc<AuthProxy>) -> Self {
        Self(watch::Sender::new(proxy))
    }

    /// Gives new clients to `proxy`. A client that is signing in or has a session stays with its
    /// own. Its cancel key is valid while both proxies have the same [`SharedState`].
    pub fn replace(&self, proxy: Arc<AuthProxy>) {
        self.0.send_replace(proxy);
    }

    /// The proxy that a client would get now.
    pub fn get(&self) -> Arc<AuthProxy> {
        Arc::clone(&self.0.borrow())
    }

    /// Notifies of each later [`ProxyHandle::replace`].
    pub(crate) fn replaced(&self) -> watch::Receiver<Arc<AuthProxy>> {
        self.0.subscribe()
    }
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
