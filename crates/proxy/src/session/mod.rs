//! What a PostgreSQL proxy does whoever it proxies for: begin a conversation, find out who may cancel what, relay.

pub(crate) mod answer;
pub(crate) mod cancel;
pub(crate) mod client;
pub(crate) mod drain;
pub(crate) mod end;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod places;
pub(crate) mod position;
pub(crate) mod presence;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod starting;
pub(crate) mod traffic;
pub(crate) mod unix;

pub use drain::Drain;
pub use limits::Limits;
pub use listen::bind_tcp;
pub use unix::UnixSocket;
