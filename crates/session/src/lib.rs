//! What the auth proxy and the gateway share: accept connections, read a client's start-up, relay, cancel, limits.
//!
//! Nothing here knows which of the two it serves. A client's connection begins in [`listen`], is read by [`client`], and ends in
//! [`relay`]; [`cancel`] finds the session that a cancel request means.

pub mod auth_message;
pub mod cancel;
pub mod client;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod limits;
pub mod listen;
pub mod login_error;
pub mod presence;
pub mod relay;
pub mod starting;
pub mod tracker;
pub mod traffic;
pub mod unix;

pub use limits::Limits;
pub use listen::bind_tcp;
pub use unix::UnixSocket;
