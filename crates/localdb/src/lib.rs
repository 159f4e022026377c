//! A PostgreSQL for this machine: started, awaited, stopped, and nothing left behind.
//!
//! [`start`] makes a server in a folder of its own, from the PostgreSQL that comes with the build
//! ([`Server::Embedded`]) or from an installed one ([`Server::Installed`]). It listens on a Unix socket in that folder
//! and nowhere else, takes no role without its SCRAM password, and keeps nothing: it is for development and tests.
//!
//! A [`Janitor`] sees to the end. However the owning process goes, SIGKILL included, the server stops and the folder
//! vanishes.

mod embedded;
mod error;
mod janitor;
mod local_db;
mod owner;
mod process;
mod server;
mod start;

pub use error::StartError;
pub use janitor::Janitor;
pub use local_db::{LocalDb, Timings};
pub use server::Server;
pub use start::{Options, start};
