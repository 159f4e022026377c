use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::error::StartError;
use crate::process::kill_group;
use crate::running::{RunningServer, STOP_LIMIT, ServerProcess, fast_shutdown};

/// Restarts a PostgreSQL while others use it.
#[derive(Debug, Clone)]
pub struct Restarter {
    running: Weak<Mutex<RunningServer>>,
    process: watch::Sender<ServerProcess>,
}

impl Restarter {
    pub(crate) fn new(running: &Arc<Mutex<RunningServer>>, process: watch::Sender<ServerProcess>) -> Self {
        Self { running: Arc::downgrade(running), process }
    }

    /// Ends the server and every session of it, whose clients get the SQLSTATE 57P01, and starts it again after
    /// `pause`. Does nothing if the server was stopped. Cancelled meanwhile, it leaves the server ended.
    ///
    /// # Errors
    /// If the server does not start again.
    pub async fn restart(&self, pause: Duration) -> Result<(), StartError> {
        let Some(running) = self.running.upgrade() else { return Ok(()) };
        let restarting = Restarting::begin(&self.process);
        let mut running = running.lock().await;
        let RunningServer { server, site } = &mut *running;
        fast_shutdown(server, STOP_LIMIT).await;
        // It has ended, or hangs.
        kill_group(server);
        let _ = server.wait().await;
        tokio::time::sleep(pause).await;
        *server = site.launch().await?;
        restarting.0.send_modify(|process| process.pid = server.id());
        Ok(())
    }
}

/// Says that the end of the server is wanted, until it is dropped.
struct Restarting<'a>(&'a watch::Sender<ServerProcess>);

impl<'a> Restarting<'a> {
    fn begin(process: &'a watch::Sender<ServerProcess>) -> Self {
        process.send_modify(|process| process.restarts = true);
        Self(process)
    }
}

impl Drop for Restarting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|process| process.restarts = false);
    }
}
