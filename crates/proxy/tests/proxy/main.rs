//! The auth proxy in front of the gateway and a real PostgreSQL, with tokens of the local Azure and
//! real clients.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test, whose helpers stand outside of test functions"
)]

mod capacity;
mod certificates;
mod doors;
mod drain;
mod fixture;
mod kept;
mod load;
mod mitm;
mod observe;
mod passwords;
mod refusals;
mod reload;
mod reuse;
mod routes;
mod scripted;
mod servers;
mod sessions;
mod start_up;
mod warm;
