//! The auth proxies behind one listener.

use std::sync::Arc;

use pgentra_session::Route;
use pgentra_wire::startup::StartupMessage;

use crate::AuthProxy;

/// The auth proxies behind one listener, each with the clients that are led to it. The first one
/// whose [`Route`] fits a client gets it; a client that fits none is refused (SQLSTATE 3D000, or
/// 28000 if only roles are named).
///
/// What comes before the route is known is that of the first one for all of them: TLS with the
/// client's certificate, the users of Unix sockets, and the time for the start-up.
#[derive(Clone, Debug)]
pub struct RoutedProxies {
    first: (Route, Arc<AuthProxy>),
    others: Vec<(Route, Arc<AuthProxy>)>,
}

impl RoutedProxies {
    /// With one proxy. More are added with [`RoutedProxies::and`].
    pub fn new(route: Route, proxy: Arc<AuthProxy>) -> Self {
        Self { first: (route, proxy), others: Vec::new() }
    }

    /// The same, with a further proxy whose route is compared after the others.
    #[must_use]
    pub fn and(mut self, route: Route, proxy: Arc<AuthProxy>) -> Self {
        self.others.push((route, proxy));
        self
    }

    pub(crate) fn first(&self) -> &Arc<AuthProxy> {
        &self.first.1
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<AuthProxy>> {
        self.each().map(|(_, proxy)| proxy)
    }

    /// Whether the first one gets the clients that are refused too: there is no other.
    pub(crate) fn is_one(&self) -> bool {
        self.others.is_empty()
    }

    /// The proxy of the client with this start-up; `host_name` is the name that it gave in the TLS
    /// handshake.
    pub(crate) fn find(&self, host_name: Option<&str>, start: &StartupMessage) -> Option<&Arc<AuthProxy>> {
        let mut each = self.each();
        let found = each.find(|(route, _)| route.fits(host_name, start.database(), start.user()));
        found.map(|(_, proxy)| proxy)
    }

    /// Whether clients are told apart by their roles alone.
    pub(crate) fn is_by_role(&self) -> bool {
        self.each().all(|(route, _)| route.databases.is_empty() && route.host_names.is_empty())
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &(Route, Arc<AuthProxy>)> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl From<Arc<AuthProxy>> for RoutedProxies {
    /// All clients are led to this proxy.
    fn from(proxy: Arc<AuthProxy>) -> Self {
        Self::new(Route::default(), proxy)
    }
}
