//! One authenticated, verified TLS connection to PostgreSQL, with a fresh access token as the password.
//!
//! ```no_run
//! use pgentra_connect::{Connector, Layers, Target};
//! use pgentra_identity::{Cloud, Credential};
//! use pgentra_system::System;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let world = System::real();
//! let uri = "postgresql://myuser@my-server.postgres.database.azure.com/postgres";
//! let target = Target::resolve(&Layers::gather(Some(uri), &[], world.env(), world.files())?)?;
//! let credential = Credential::builder(world).build()?;
//! let connector = Connector::new(target, credential, Cloud::Public.postgres_resource())?;
//! let session = connector.connect().await?;
//! let row = session.client().query_one("SELECT version()", &[]).await?;
//! println!("{}", row.get::<_, &str>(0));
//! # Ok(())
//! # }
//! ```
//!
//! What never happens: a token leaves only inside TLS whose certificate was verified, and only as the answer to
//! `AuthenticationCleartextPassword`. Not where the server declines TLS, not for a certificate of another name, not for
//! MD5 or SCRAM. There is no switch for that: libpq's `sslmode` below `verify-ca` is refused.

pub mod adapter;
mod advice;
mod as_libpq;
mod cancel;
mod command_server;
mod connector;
mod conninfo;
mod dial;
mod error;
mod handshake;
mod keyword;
mod layers;
mod libpq;
mod load_balance;
mod look_up;
mod origin;
pub mod quote;
mod reach;
mod refusal;
mod resume;
mod role_name;
mod roots;
mod server_state;
mod service_connector;
mod service_file;
mod session;
mod signed_in;
mod stages;
mod stream;
mod strike_out;
mod target;
pub mod tls;
mod tls_info;
mod token_state;
mod untrusted;
mod url;

/// Where a [`Connector`]'s credential and resource come from.
#[doc(no_inline)]
pub use pgentra_identity;

pub use cancel::Canceller;
pub use connector::Connector;
pub use conninfo::split_connection_string;
pub use error::{ConnectError, ConnectErrorKind, TlsFailure};
pub use keyword::{connection_keywords, is_connection_keyword};
pub use layers::Layers;
pub use libpq::{LibpqEnvironment, ListenerEnvironment};
pub use load_balance::LoadBalanceHosts;
pub use origin::Origin;
pub use pgentra_wire::session_attrs::{ServerState, SessionAttrs};
pub use refusal::{Refusal, ServerMessage};
pub use role_name::{RoleCandidate, role_candidates};
pub use roots::Roots;
pub use service_connector::client_id as service_connector_client_id;
pub use session::Session;
pub use signed_in::{SignedIn, Timings};
pub use stages::Secured;
pub use stream::TlsStream;
pub use target::{DEFAULT_CONNECT_TIMEOUT, Decided, HostSpec, KeepAlive, SslMode, SslNegotiation, Target};
pub use tls_info::TlsInfo;
pub use token_state::{TokenIdentity, TokenState};

/// Compiles what `docs/identity.md` shows.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/identity.md")]
struct IdentityPage;
