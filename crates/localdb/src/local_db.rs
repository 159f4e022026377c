use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use tokio::process::Child;

use crate::janitor::Janitor;
use crate::process::kill_group;

/// A running PostgreSQL. Dropping it stops the server at once and removes its folder, and blocks until both are done
/// (see [`Janitor`]); [`LocalDb::stop`] does so in the kinder way.
#[derive(Debug)]
pub struct LocalDb {
    pub(crate) server: Child,
    pub(crate) socket_dir: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) password: SecretString,
    pub(crate) version: String,
    pub(crate) timings: StartTimings,
    // Must be the last field: fields are dropped in order, and the server's handle has to be dropped first.
    pub(crate) janitor: Janitor,
}

/// How long the parts of a start took.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartTimings {
    /// Making the folder and, where the server is the embedded one, unpacking it.
    pub unpack: Duration,
    /// The run of `initdb`, which creates the cluster.
    pub initdb: Duration,
    /// From the start of the server until it took connections.
    pub start: Duration,
}

impl LocalDb {
    /// The port that names the socket; nothing listens on TCP.
    pub(crate) const PORT: u16 = 5432;
    pub(crate) const SUPERUSER: &str = "azuresu";

    /// The folder of the Unix socket: what libpq takes as the host. Only the server's user (and root) can enter it.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port, which is part of the socket's name. Nothing listens on a TCP port.
    pub fn port(&self) -> u16 {
        LocalDb::PORT
    }

    /// The name of the one role there is, a superuser: `azuresu`, as on Azure.
    pub fn superuser(&self) -> &str {
        LocalDb::SUPERUSER
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

    /// The folder of the server's data.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Ends the server as a crash does, by SIGKILL; its sessions notice it and end. The folder is removed when this is dropped.
    pub fn kill(&self) {
        kill_group(&self.server);
    }

    /// The path of the server's log; it is removed with the folder.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How long the parts of the start took.
    pub fn timings(&self) -> StartTimings {
        self.timings
    }

    /// Waits until the server ends without [`LocalDb::stop`], which is a failure. Cancel-safe.
    ///
    /// # Errors
    /// Those of `waitpid`.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.server.wait().await
    }

    /// Ends all sessions (fast shutdown), stops the server and removes its folder.
    ///
    /// A folder that could not be removed is logged as an error. A server
    /// that has not stopped after ten seconds is killed. Cancel-safe: cancelled, it goes on as dropping does.
    pub async fn stop(mut self) {
        if let Some(pid) = self.server.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // An error means that the process has ended already.
            let _ = kill_process(pid, Signal::INT);
            let _ = tokio::time::timeout(STOP_LIMIT, self.server.wait()).await;
        }
        let folder = self.janitor.folder().to_owned();
        let janitor = self.janitor;
        match tokio::task::spawn_blocking(move || janitor.finish()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(folder = %folder.display(), %error, "cannot remove the folder");
            }
            Err(error) => tracing::error!(folder = %folder.display(), %error, "the folder may be left"),
        }
    }
}

/// A temporary server writes little at its shutdown; after this time it counts as hanging and is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
