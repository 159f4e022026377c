//! The auth proxy of one target.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use pgentra_connect::Connector;
use pgentra_session::Limits;

use crate::auth::ClientAuth;
use crate::drain::Drain;
use crate::options::{DemotedSessions, Naming, Options};
use crate::pool::ServerPool;
use crate::shared_state::SharedState;
use crate::telemetry::{PoolStats, TargetTelemetry};

/// The auth proxy of one target. It connects when the first client comes.
pub struct AuthProxy {
    pub(crate) connector: Connector,
    pub(crate) naming: Naming,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) demoted_sessions: DemotedSessions,
    pub(crate) shared: SharedState,
    /// Whether each client gets a session of its own, apart from the pool.
    pub(crate) is_direct: bool,
    /// Shared with its siblings.
    client_auth: Arc<RwLock<Arc<ClientAuth>>>,
    pub(crate) telemetry: Arc<TargetTelemetry>,
    pub(crate) pool: Arc<ServerPool>,
}

impl AuthProxy {
    /// An auth proxy whose sessions `connector` opens.
    pub fn new(connector: Connector, options: Options) -> Self {
        let pool = Arc::new(ServerPool::new(connector.clone(), &options));
        let Options { naming, limits, drain, shared, telemetry, client_auth, demoted_sessions, .. } = options;
        let client_auth = Arc::new(RwLock::new(Arc::new(client_auth)));
        let is_direct = false;
        Self {
            connector,
            naming,
            limits,
            drain,
            demoted_sessions,
            shared,
            is_direct,
            client_auth,
            telemetry,
            pool,
        }
    }

    /// The same target for clients that prefer a standby (`target_session_attrs=prefer-standby`),
    /// with a pool of its own. Limits, client authentication, cancel keys, telemetry and what is
    /// known of the servers are shared with this one. To be called once.
    #[must_use]
    pub fn reading(&self) -> Self {
        Self { pool: self.pool.reading(), ..self.sibling() }
    }

    /// The same target for clients whose sessions are never pooled: each is opened for its client
    /// and ended with it. All else is shared with this one; pooled sessions make room for these.
    #[must_use]
    pub fn direct(&self) -> Self {
        Self { is_direct: true, ..self.sibling() }
    }

    fn sibling(&self) -> Self {
        Self {
            connector: self.connector.clone(),
            naming: self.naming,
            limits: self.limits.clone(),
            drain: self.drain,
            demoted_sessions: self.demoted_sessions,
            shared: self.shared.clone(),
            is_direct: self.is_direct,
            client_auth: Arc::clone(&self.client_auth),
            telemetry: Arc::clone(&self.telemetry),
            pool: Arc::clone(&self.pool),
        }
    }

    /// The pool's counters, over all proxies with the same telemetry. All zero if no sessions are
    /// pooled: see [`Options::warm`] and [`Options::reuse`].
    pub fn supply(&self) -> PoolStats {
        self.telemetry.supply().get()
    }

    /// Replaces the client authentication for new clients, for example after a certificate or the
    /// users file was renewed. Existing sessions stay, and a client that is signing in goes on with
    /// the old one.
    pub fn set_client_auth(&self, client_auth: ClientAuth) {
        *self.client_auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client_auth);
    }

    pub(crate) fn client_auth(&self) -> Arc<ClientAuth> {
        Arc::clone(&self.client_auth.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for AuthProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthProxy")
            .field("naming", &self.naming)
            .field("limits", &self.limits)
            .field("client_auth", &self.client_auth())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
