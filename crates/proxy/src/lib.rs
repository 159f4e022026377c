//! The auth proxy: clients connect without a password, and the proxy signs them in with a token.
//!
//! The proxy sends the client's own start-up to the server, over verified TLS and with a fresh
//! token; then it relays byte by byte. Which clients may connect is decided before the server is
//! dialled: by the listener's address (the loopback interface, or a Unix socket of the same user),
//! and by the [`ClientAuth`] (TLS, a certificate, a password). A listener that other machines reach
//! is an error without such a proof: see [`Listener::tcp`].

mod auth;
mod auth_proxy;
mod connection;
mod drain;
mod handle;
pub mod http;
mod limits;
mod listener;
mod options;
mod pool;
mod refusal;
mod routed;
mod serve;
mod servers;
mod shared_state;
pub mod telemetry;
mod upstream;
mod upstream_start;

pub use auth::{CertificateName, CertificateRule, ClientAuth, ClientAuthError, RoleMap, Tls, Users};
pub use auth_proxy::AuthProxy;
pub use drain::Drain;
pub use handle::ProxyHandle;
pub use listener::{Listener, ListenerError};
pub use options::{DemotedSessions, Naming, Options, SERVER_LIFETIME, SERVER_ROLE_INTERVAL, WARM_MAX_AGE};
pub use routed::RoutedProxies;
pub use serve::ShutdownTokens;
pub use shared_state::SharedState;
pub use telemetry::PoolStats;
