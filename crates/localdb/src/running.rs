use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::site::Site;

/// The server's process, and the folder that it runs in.
#[derive(Debug)]
pub(crate) struct RunningServer {
    pub(crate) server: Child,
    // Must be the last field: fields are dropped in order, and the server's handle has to be dropped first.
    pub(crate) site: Site,
}

/// What is known of the server's process without waiting for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerProcess {
    pub(crate) pid: Option<u32>,
    /// Its end is wanted: another process follows.
    pub(crate) restarts: bool,
}

/// Ends the server and its sessions (SQLSTATE 57P01), and waits for it until `limit`.
pub(crate) async fn fast_shutdown(server: &mut Child, limit: Duration) {
    if let Some(pid) = server.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // An error means that the process has ended already.
        let _ = kill_process(pid, Signal::INT);
        let _ = tokio::time::timeout(limit, server.wait()).await;
    }
}

/// A temporary server writes little at its shutdown; after this time it counts as hanging and is killed.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(10);
