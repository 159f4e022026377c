//! The verifier from outside: hostile tokens, honest tokens, and the keys over time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod hostile;
mod issuers;
mod keys;
mod local_cloud;
mod mint;
mod principal;
