//! The gateway in front of a real PostgreSQL, with tokens of the local Azure, real TLS and real
//! clients.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test, whose helpers stand outside of test functions"
)]

mod administrators;
mod cancel;
mod capacity;
mod directory;
mod fixture;
mod flexible;
mod group_sync;
mod hostile;
mod issuer_answers;
mod labels;
mod logs;
mod oauth;
mod psql;
mod raw;
mod refusals;
mod sessions;
mod several;
mod single;
mod start_up;
mod warm;
mod watched;
