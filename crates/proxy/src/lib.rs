//! PostgreSQL sessions: accept, relay, cancel; the gateway lets any PostgreSQL accept Entra tokens, the injector signs any
//! client in with them.
//!
//! [`session`] holds what every proxy of this protocol needs; on top of it are [`gateway`], the server side, and
//! [`inject`], the client side. [`observe`] keeps what can be seen of the latter, and [`admin`] shows it over HTTP.

pub mod admin;
pub mod gateway;
pub mod inject;
pub mod observe;
pub mod session;
