//! A temporary PostgreSQL on this machine: starts it, waits until it is ready, stops it, and removes its files.
//!
//! [`start`] makes a server in a folder of its own, from the PostgreSQL that comes with the build
//! ([`Installation::Embedded`]) or from an installed one ([`Installation::Installed`]). It listens on a Unix socket in that folder
//! and nowhere else, takes no role without its SCRAM password, and keeps nothing: it is for development and tests.
//!
//! [`start_saved`] starts one with the files that another left, which [`Backup`] also copies while it runs.
//!
//! [`start_standby`] makes a streaming replica of such a server, for tests of a failover.
//!
//! [`start_pooler`] runs an installed PgBouncer in front of such a server.
//!
//! A [`Janitor`] does the clean-up: when the owning process ends, also by SIGKILL, it stops the server and removes the
//! folder.

mod backup;
mod blocking;
mod embedded;
mod error;
mod janitor;
mod local_db;
mod owner;
mod plain_file;
mod pooler;
mod process;
mod restart;
mod running;
mod saved;
mod server;
mod site;
mod standby;
mod start;
mod timings;

pub use backup::Backup;
pub use error::StartError;
pub use janitor::Janitor;
pub use local_db::LocalDb;
pub use pooler::{LocalPooler, PooledServer, PoolerProgram, PoolerSettings, start_pooler};
pub use restart::Restarter;
pub use saved::{SavedData, start_saved};
pub use server::Installation;
pub use site::Options;
pub use standby::start_standby;
pub use start::start;
pub use timings::StartTimings;
