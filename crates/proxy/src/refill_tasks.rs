//! The refill task of an auth proxy, and who needs it.

use std::sync::Mutex;

use tokio::task::AbortHandle;

/// The number of listeners that are served, and their refill task.
#[derive(Default)]
pub(super) struct RefillTasks(pub(super) Mutex<(usize, Option<AbortHandle>)>);
