//! PostgreSQL start-up, TLS negotiation, authentication, error and cancel messages, both roles: bytes in, values out.
//!
//! Sans-IO: a decoder takes a buffer that the caller fills, and answers with a value, with `None` ("more bytes
//! are needed", nothing was consumed) or with an error. An encoder appends to a buffer. There is no socket, no
//! clock and no runtime in here.
//!
//! Bounded: a length is compared with its limit of [`limits`] as soon as its four bytes are there, so a buffer
//! never has to grow past that limit; and what a decoder would refuse, the encoder refuses to write. Values are
//! slices of the received buffer; nothing is copied.
//!
//! Only the conversation up to the first ReadyForQuery is in here: afterwards a proxy relays bytes. The framing
//! of later messages is [`frame::Header`].
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", sections "Message Flow", "SASL Authentication"
//! and "Message Formats"; protocol 3.2 is that of PostgreSQL 18.

pub mod backend;
pub mod client_login;
pub mod fields;
pub mod frame;
pub mod frontend;
pub mod limits;
pub mod oauthbearer;
pub mod scram;
pub mod session_attrs;
pub mod startup;

mod cstring;
mod error;

pub use error::WireError;
