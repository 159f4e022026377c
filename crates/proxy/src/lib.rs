//! PostgreSQL sessions: accept, relay, cancel; the gateway lets any PostgreSQL accept Entra tokens.
//!
//! [`session`] holds what every proxy of this protocol needs; [`gateway`] is the server side on top of it.

pub mod gateway;
pub mod session;
