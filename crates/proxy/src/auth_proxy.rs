//! The auth proxy of one target.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgentra_connect::Connector;
use pgentra_session::Limits;
use tokio::sync::{Notify, Semaphore};

use crate::auth::ClientAuth;
use crate::drain::Drain;
use crate::options::{Naming, Options};
use crate::pool::Pool;
use crate::rate::Rate;
use crate::refill_tasks::RefillTasks;
use crate::shared_state::SharedState;
use crate::telemetry::TargetTelemetry;
use crate::upstream::Upstream;

/// The auth proxy of one target. It connects when the first client comes.
pub struct AuthProxy {
    pub(crate) connector: Connector,
    pub(crate) naming: Naming,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) shared: SharedState,
    pub(crate) client_auth: RwLock<Arc<ClientAuth>>,
    /// Limits the connections to the server that are being opened for clients.
    pub(crate) opening: Semaphore,
    pub(crate) telemetry: Arc<TargetTelemetry>,
    pub(crate) rate: Rate,
    pub(crate) warm: usize,
    pub(crate) reuse: bool,
    pub(crate) server_lifetime: Duration,
    pub(crate) server_check_delay: Duration,
    pub(crate) pool: Pool<Upstream>,
    pub(crate) refill_tasks: RefillTasks,
    /// Wakes the refill task.
    pub(crate) changed: Notify,
}

impl AuthProxy {
    /// An auth proxy whose sessions `connector` opens.
    pub fn new(connector: Connector, options: Options) -> Self {
        let Options {
            naming,
            limits,
            drain,
            shared,
            telemetry,
            client_auth,
            warm,
            warm_max_age,
            reuse,
            server_lifetime,
            server_check_delay,
            connect_rate,
        } = options;
        Self {
            connector,
            naming,
            drain,
            shared,
            client_auth: RwLock::new(Arc::new(client_auth)),
            opening: Semaphore::new(limits.starting.clamp(1, Semaphore::MAX_PERMITS)),
            limits,
            rate: Rate::new(connect_rate),
            warm,
            reuse,
            server_lifetime,
            server_check_delay,
            pool: Pool::new(warm_max_age, telemetry.supply().ready.clone()),
            refill_tasks: RefillTasks::default(),
            changed: Notify::new(),
            telemetry,
        }
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
            .field("connector", &self.connector)
            .field("naming", &self.naming)
            .field("limits", &self.limits)
            .field("client_auth", &self.client_auth())
            .field("warm", &self.warm)
            .field("reuse", &self.reuse)
            .finish_non_exhaustive()
    }
}
