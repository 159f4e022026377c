//! End-to-end tests: the built program, all its processes, a real PostgreSQL, real clients.
//!
//! Every test works in a [`Lab`]: a folder, an environment and a record of all output. When the lab
//! is dropped, it searches for a token in the output and in files, for files that are left, and for
//! processes that are left.
//!
//! The clients come from `e2e/setup.sh`, which `cargo xtask test` runs first.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod binary;
mod browser;
mod client;
mod cloud;
mod conversation;
mod lab;
mod namespace;
mod proxy;
mod run;
mod secrecy;

pub use binary::{example, example_with, pgentra};
pub use browser::{look, undocumented};
pub use client::{client, have};
pub use cloud::{Cloud, Flavour};
pub use conversation::Conversation;
pub use lab::{Lab, User};
pub use namespace::Namespace;
pub use proxy::Proxy;
pub use run::{Done, Run};

/// The resource of Azure Database for PostgreSQL, as a query string writes it.
pub const RESOURCE: &str = "https%3A%2F%2Fossrdbms-aad.database.windows.net";
