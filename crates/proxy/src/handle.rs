//! A handle to the auth proxy of a listener, which a reload can replace.

use std::sync::Arc;

use tokio::sync::watch;

use super::AuthProxy;

/// The auth proxy that the next client of a listener gets: it can be replaced while clients are
/// served. Clones share one.
#[derive(Clone, Debug)]
pub struct ProxyHandle(watch::Sender<Arc<AuthProxy>>);

impl ProxyHandle {
    /// A handle that begins with this proxy.
    pub fn new(proxy: Arc<AuthProxy>) -> Self {
        Self(watch::Sender::new(proxy))
    }

    /// Gives new clients to `proxy`. A client that is signing in or has a session stays with its
    /// own. Its cancel key is valid while both proxies have the same [`SharedState`](crate::SharedState).
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
