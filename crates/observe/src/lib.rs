//! What a server program shows of itself: probes and metrics over HTTP ([`http`]), and an audit log.
//!
//! The program says what there is to see by [`http::Observable`]; this crate does not know which
//! program it is.

mod audit;
mod exposition;
pub mod http;

pub use audit::{AuditLog, OpenLog, rfc3339};
pub use exposition::Exposition;
