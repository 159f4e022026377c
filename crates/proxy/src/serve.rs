//! Accepts clients until the shutdown, and waits until every session has ended.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pool::RefillGuard;
use super::{AuthProxy, Listener, ProxyHandle, RoutedProxies, connection};
use crate::telemetry::Listening;
use pgentra_session::client::Client;
use pgentra_session::listen::{Listen, Shutdown, accept};
use pgentra_session::starting::Starting;

/// The tokens that end serving.
#[derive(Clone, Debug, Default)]
pub struct ShutdownTokens {
    /// Cancelled: the listener closes, and sessions go on without a time limit.
    pub listening: CancellationToken,
    /// Cancelled: the listener closes, and sessions are drained.
    pub serving: CancellationToken,
    /// Cancelled as well: sessions get no time to end by themselves.
    pub waiting: CancellationToken,
}

impl AuthProxy {
    /// Serves clients until `shutdown` is cancelled, then drains: see [`ProxyHandle::serve`].
    pub fn serve(
        self: Arc<Self>,
        listener: Listener,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        ProxyHandle::new(self)
            .serve(listener, ShutdownTokens { serving: shutdown, ..ShutdownTokens::default() })
    }
}

impl ProxyHandle {
    /// Serves clients until a token of `stop` is cancelled. In a drain, a client that is still
    /// signing in gets 57P03. Sessions get [`Limits::drain`](pgentra_session::Limits::drain) to end
    /// by themselves, or to reach the end of their transaction
    /// ([`Options::drain`](super::Options::drain)). After that, clients that wait for an answer get
    /// 57P01, and those in the middle of one are cut off. If `stop` skips the drain, this happens
    /// at once. Returns when the last session has ended.
    ///
    /// Dropping the future drops the sessions too. One proxy can serve several listeners, which
    /// share limits and cancel keys. Telemetry shows the listener as up from this call on.
    pub fn serve(self, listener: Listener, stop: ShutdownTokens) -> impl Future<Output = ()> + Send {
        let up = shown_at(
            &self.get(),
            match &listener {
                Listener::Tcp(listener) => listener.name(),
                #[cfg(unix)]
                Listener::Unix(listener) => listener.name(),
            },
        );
        async move {
            match listener {
                Listener::Tcp(listener) => self.serve_on(listener, stop, up).await,
                #[cfg(unix)]
                Listener::Unix(listener) => self.serve_on(listener, stop, up).await,
            }
        }
    }

    async fn serve_on<L: Listen>(self, listener: L, stop: ShutdownTokens, mut up: Vec<Listening>) {
        let mut replaced = self.replaced();
        let mut keeping = keep_pools(&self.get());
        let stages = Shutdown { hurry: stop.waiting, ..Shutdown::until(stop.serving) };
        let _kill = stages.kill.clone().drop_guard();
        let tasks = TaskTracker::new();
        // One for each listener: load on one listener closes no connection of another.
        let starting = Starting::within(&self.get().first().limits);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stages.drain.cancelled() => None,
                Ok(()) = replaced.changed() => {
                    // A reload may have given the listener to another target.
                    up = shown_at(&self.get(), listener.name());
                    keeping = keep_pools(&self.get());
                    continue;
                }
                accepted = accept(&listener, &starting, &stop.listening) => accepted,
            };
            let Some((stream, address, seat)) = accepted else { break };
            let client = Client::new(stream, address);
            tasks.spawn(connection::run(self.get(), client, seat, stages.clone()));
        }
        drop((listener, up, keeping));
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = stages.drain.cancelled() => stages.wind_up(&tasks, self.get().first().limits.drain).await,
        }
    }
}

/// Shows the listener as up until the returned values are dropped.
fn shown_at(proxies: &RoutedProxies, address: String) -> Vec<Listening> {
    let shown = proxies.each().map(|(route, proxy)| {
        let mut access = proxy.client_auth().access();
        access.role = access.role.or_else(|| route.roles.first().cloned());
        access.database = route.databases.first().cloned();
        let servers = proxy.pool.shown_servers();
        proxy.telemetry.served_by((&proxy.connector, servers), proxy.limits.connections, access);
        proxy.telemetry.listens_on(address.clone())
    });
    shown.collect()
}

/// Has the pools store sessions until the returned values are dropped.
fn keep_pools(proxies: &RoutedProxies) -> Vec<RefillGuard> {
    proxies.all().filter_map(|proxy| RefillGuard::of(Arc::clone(&proxy.pool))).collect()
}
