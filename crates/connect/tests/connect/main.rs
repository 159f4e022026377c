//! Connections against servers on loopback, honest and hostile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod libpq;
mod mitm;
mod resolve;
mod roots;
mod server;
mod sign_in;
