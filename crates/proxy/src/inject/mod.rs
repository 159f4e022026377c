//! The client side: any program connects without a password, and is signed in with a token.
//!
//! The client's own start-up goes to the server, over verified TLS and with a fresh token; what follows is relayed byte by
//! byte. Who may connect is decided before anything is dialled: by where the listener is (on the loopback interface, or a
//! Unix socket of the same user), and by what its [`Door`] asks for (TLS, a certificate, a password).

mod admit;
mod current;
mod door;
mod login;
mod refusal;
mod serve;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use pgentra_connect::Connector;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use current::{Current, Shared};
pub use door::{CertificateName, CertificateRule, Door, DoorError, RoleMap, Tls, Users};
pub use serve::Stop;

use crate::observe::TargetObserver;
use crate::session::{Limits, UnixSocket};

/// Where clients come in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP address. Whoever reaches it is let in, unless the [`Door`] asks for more: without that, bind it to the loopback
    /// interface.
    Tcp(TcpListener),
    /// A Unix socket. Clients of another user are refused.
    Unix(UnixSocket),
}

/// What a role and a database that the target names mean for clients. One that it does not name is the client's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// A client that names another one is refused, SQLSTATE 28000. A client that names no database gets the target's.
    #[default]
    Same,
    /// They take the place of whatever the client names.
    Pinned,
}

/// What an injector does beyond signing clients in. The default suits a small server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What a role and a database that the target names mean for clients.
    pub naming: Naming,
    /// How much it takes on. [`Limits::start_up`] is the time that a client has for TLS, its start-up packet and its password;
    /// what follows is bounded by the credential's and the target's own limits, so that their failures are told and not cut off.
    pub limits: Limits,
    /// What it has in common with the injector whose place it takes.
    pub shared: Shared,
    /// Who is told what happens. By default nobody.
    pub observer: Arc<TargetObserver>,
    /// What is asked of clients before anything is dialled; [`Injector::set_door`] replaces it.
    pub door: Door,
}

/// Signs clients in to one target. Nothing is connected before the first client.
pub struct Injector {
    connector: Connector,
    naming: Naming,
    limits: Limits,
    shared: Shared,
    door: RwLock<Arc<Door>>,
    starting: Arc<Semaphore>,
    observer: Arc<TargetObserver>,
}

impl Injector {
    /// An injector whose sessions `connector` opens.
    pub fn new(connector: Connector, options: Options) -> Self {
        let Options { naming, limits, shared, observer, door } = options;
        observer.served_by(&connector, limits.connections);
        Self {
            connector,
            naming,
            shared,
            door: RwLock::new(Arc::new(door)),
            // Without at least one, nobody would be told that the limit is zero.
            starting: Arc::new(Semaphore::new(limits.starting.clamp(1, Semaphore::MAX_PERMITS))),
            limits,
            observer,
        }
    }

    /// Asks this of the clients that come from now on, such as when a certificate or the file of users was replaced.
    /// Sessions stay, and whoever is signing in is asked what it was asked.
    pub fn set_door(&self, door: Door) {
        *self.door.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(door);
    }

    fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector")
            .field("connector", &self.connector)
            .field("naming", &self.naming)
            .field("limits", &self.limits)
            .field("door", &self.door())
            .finish_non_exhaustive()
    }
}
