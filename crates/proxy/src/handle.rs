//! A handle to the auth proxies of a listener, which a reload can replace.

use std::sync::Arc;

use tokio::sync::watch;

use crate::routed::RoutedProxies;

/// The auth proxies that the next client of a listener is led to: they can be replaced while clients
/// are served. Clones share them.
#[derive(Clone, Debug)]
pub struct ProxyHandle(watch::Sender<Arc<RoutedProxies>>);

impl ProxyHandle {
    /// A handle that begins with these proxies, or with one for all clients.
    pub fn new(proxies: impl Into<RoutedProxies>) -> Self {
        Self(watch::Sender::new(Arc::new(proxies.into())))
    }

    /// Gives new clients to these proxies. A client that is signing in or has a session stays with
    /// its own. Its cancel key is valid while a proxy of the same
    /// [`SharedState`](crate::SharedState) is among the new ones.
    pub fn replace(&self, proxies: impl Into<RoutedProxies>) {
        self.0.send_replace(Arc::new(proxies.into()));
    }

    /// The proxies of the next client.
    pub(crate) fn get(&self) -> Arc<RoutedProxies> {
        Arc::clone(&self.0.borrow())
    }

    /// Notifies of each later [`ProxyHandle::replace`].
    pub(crate) fn replaced(&self) -> watch::Receiver<Arc<RoutedProxies>> {
        self.0.subscribe()
    }
}
