//! `pgentra gateway` in front of stock PostgreSQL servers: sign-ins by every method and mapping,
//! reload, and failures.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod changes;
mod checks;
mod faults;
mod graph;
mod mapping;
mod page;
mod pgbouncer;
mod sign_in;
mod stage;
mod warm;
