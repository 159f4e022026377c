//! What the auth proxy and the gateway share: accepting connections, a client's start-up, relay,
//! cancel and limits.
//!
//! This crate does not know which of the two uses it. [`listen`] accepts a client's connection,
//! [`client`] reads its start-up and [`relay`] forwards its session; [`cancel`] finds the session
//! of a cancel request.

pub mod attempts;
pub mod auth_message;
pub mod cancel;
pub mod client;
mod early;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod greeting;
pub mod kept;
/// Limits of a listener: sessions, connections in start-up, and times.
pub mod limits;
pub mod listen;
pub mod login_error;
pub mod presence;
pub mod relay;
pub mod route;
pub mod starting;
pub mod tracker;
pub mod traffic;
pub mod turn_away;
#[cfg(unix)]
pub mod unix;

pub use limits::Limits;
pub use listen::bind_tcp;
pub use route::Route;
#[cfg(unix)]
pub use unix::UnixSocket;
