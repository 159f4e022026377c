use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;
use tokio::process::Child;
use tokio::sync::{Mutex, watch};

use crate::backup::Backup;
use crate::process::{all_ended, kill_group};
use crate::restart::Restarter;
use crate::running::{RunningServer, STOP_LIMIT, ServerProcess, fast_shutdown};
use crate::site::{PORT, SUPERUSER, Site};
use crate::timings::StartTimings;

/// Time for a server whose data is to be saved: it writes what it has in memory.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// A running PostgreSQL. Dropping it stops the server at once and removes its folder, and blocks until both are done
/// (see [`Janitor`](crate::Janitor)); [`LocalDb::stop`] does so in the kinder way.
#[derive(Debug)]
pub struct LocalDb {
    socket_dir: PathBuf,
    data: PathBuf,
    log: PathBuf,
    password: SecretString,
    version: String,
    timings: StartTimings,
    /// The process of the server; changes with a restart.
    process: watch::Sender<ServerProcess>,
    running: Arc<Mutex<RunningServer>>,
}

impl LocalDb {
    pub(crate) fn new(server: Child, site: Site, password: SecretString, timings: StartTimings) -> Self {
        tracing::debug!(version = site.version, ?timings, folder = %site.janitor.folder().display(), "PostgreSQL started");
        Self {
            socket_dir: site.socket_dir(),
            data: site.data(),
            log: site.log(),
            password,
            version: site.version.clone(),
            timings,
            process: watch::channel(ServerProcess { pid: server.id(), restarts: false }).0,
            running: Arc::new(Mutex::new(RunningServer { server, site })),
        }
    }

    /// What restarts the server. It does not keep the server.
    pub fn restarter(&self) -> Restarter {
        Restarter::new(&self.running, self.process.clone())
    }

    /// What copies the data while the server runs. It does not keep the server.
    pub fn backup(&self) -> Backup {
        Backup::new(&self.socket_dir, &self.data, &self.password, &self.version)
    }

    /// The folder of the Unix socket: what libpq takes as the host. Only the server's user (and root) can enter it.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port, which is part of the socket's name. Nothing listens on a TCP port.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The name of the one role there is, a superuser: `azuresu`, as on Azure.
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The superuser's password, made for this server from 32 random bytes. It is stored in memory only, and in the folder
    /// of a standby (see [`start_standby`](crate::start_standby)).
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// The server's version, such as "17.5".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder of the server's data. Its files change until [`LocalDb::shut_down`] has ended the server.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Ends the server as a crash does, by SIGKILL; its sessions notice it and end. The folder is removed when this is dropped.
    pub fn kill(&self) {
        if let Some(pid) = self.process.borrow().pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // An error means that the process has ended already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The path of the server's log; it is removed with the folder.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How long the parts of the start took.
    pub fn timings(&self) -> StartTimings {
        self.timings
    }

    /// Waits until the server ends without [`LocalDb::stop`] or a [`Restarter`], which is a failure. Cancel-safe.
    ///
    /// # Errors
    /// Those of `waitpid`.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let mut process = self.process.subscribe();
        loop {
            // An error is not possible: this value has the sender.
            let _ = process.wait_for(|process| !process.restarts).await;
            let mut running = self.running.lock().await;
            tokio::select! {
                ended = running.server.wait() => return ended,
                _ = process.wait_for(|process| process.restarts) => {}
            }
        }
    }

    /// Ends all sessions (fast shutdown) and the server, and waits until no process of it is left. Its files stay until
    /// this is stopped or dropped. A [`Restarter`] must not be at work.
    ///
    /// A server that has not ended after a minute is killed; the next start with its files recovers what was
    /// committed. So it does after a crash. Cancel-safe: cancelled, the server may still run.
    ///
    /// # Errors
    /// If processes are left that may change the files.
    pub async fn shut_down(&self) -> io::Result<()> {
        // Its end is wanted.
        self.process.send_modify(|process| process.restarts = true);
        let mut running = self.running.lock().await;
        fast_shutdown(&mut running.server, SAVE_LIMIT).await;
        kill_group(&running.server);
        let _ = running.server.wait().await;
        all_ended(&self.log, STOP_LIMIT).await
    }

    /// Ends all sessions (fast shutdown), stops the server and removes its folder.
    ///
    /// A folder that could not be removed is logged as an error. A server
    /// that has not stopped after ten seconds is killed. Cancel-safe: cancelled, it goes on as dropping does.
    pub async fn stop(self) {
        let mut running = self.running.lock().await;
        fast_shutdown(&mut running.server, STOP_LIMIT).await;
        drop(running);
        // A restarter that still works keeps the server: it removes the folder then.
        let Some(RunningServer { site: Site { janitor, .. }, .. }) =
            Arc::into_inner(self.running).map(Mutex::into_inner)
        else {
            return;
        };
        let folder = janitor.folder().to_owned();
        match tokio::task::spawn_blocking(move || janitor.finish()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(folder = %folder.display(), %error, "cannot remove the folder");
            }
            Err(error) => tracing::error!(folder = %folder.display(), %error, "the folder may be left"),
        }
    }
}
