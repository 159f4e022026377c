//! Access to the machine: clock, environment, files, user accounts, programs, HTTP client.
//!
//! Nothing else in this project reads the clock, the environment or the file system. [`System::real`] is this process on this
//! machine; [`System::builder`] puts one together from parts, for a test or a local cloud.

pub mod http;

mod accounts;
mod clock;
mod env;
mod excerpt;
mod files;
mod open_files;
mod processes;
pub mod secret;
pub mod span;
mod system;

pub use self::accounts::Accounts;
pub use self::clock::{Clock, ManualClock, RuntimeClock, SystemClock};
pub use self::env::Env;
pub use self::excerpt::excerpt;
pub use self::files::{Files, append_private};
pub use self::open_files::open_files;
pub use self::processes::{Finished, Invocation, Processes};
pub use self::system::{System, SystemBuilder};
