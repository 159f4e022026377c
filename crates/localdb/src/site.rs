use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::process::Child;
use tokio::time::{Instant, interval, timeout};

use crate::blocking::to_its_end;
use crate::embedded;
use crate::error::StartError;
use crate::janitor::{Farewell, Janitor};
use crate::owner::Owner;
use crate::plain_file;
use crate::process::{ServerProgram, kill_group, last_lines};
use crate::server::{Installation, Programs};
use crate::timings::StartTimings;

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's folder: made, owned and in the end removed by it. Its parent must exist. As root, the user
    /// `postgres` (or else `nobody`) should be able to enter the parent, because the server runs as that user. At most
    /// about 80 bytes long, as the path of a Unix socket holds little more than 100.
    pub folder: PathBuf,
    /// The PostgreSQL installation to run.
    pub server: Installation,
}

/// The port that names the socket; nothing listens on TCP.
pub(crate) const PORT: u16 = 5432;
pub(crate) const SUPERUSER: &str = "azuresu";

/// `initdb` needs half a second on an idle machine. This is for a very busy one.
const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// As `pg_ctl` waits by default.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often the lock file is read for the word "ready".
const READY_INTERVAL: Duration = Duration::from_millis(10);
/// The room for a path in a Unix socket's address, without its closing zero byte: 107 bytes on Linux, 103 elsewhere.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Replaces the file that `initdb` writes: every role needs a password, and TCP is not allowed.
const PG_HBA: &str = "local all all scram-sha-256\nlocal replication all scram-sha-256\n";

/// The first line of [`SETTINGS`].
const MARK: &str = "# A PostgreSQL for this machine alone.";

/// Follows what `initdb` writes, and [`MARK`]. No path is in it, so that no path needs quoting.
const SETTINGS: &str = "
listen_addresses = ''
unix_socket_directories = '../socket'
unix_socket_permissions = 0700
max_connections = 100
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
wal_level = 'logical'

# A throw-away cluster: it need not survive the machine, and its shared memory lies in its folder. A commit that was
# acknowledged survives the crash of one of its processes: synchronous_commit stays on, which costs a write and no flush.
fsync = off
full_page_writes = off
dynamic_shared_memory_type = 'mmap'

# A statement that failed may carry a password.
log_min_error_statement = panic
";

/// A folder in which a server is being made, or runs.
#[derive(Debug)]
pub(crate) struct Site {
    programs: Programs,
    pub(crate) version: String,
    owner: Option<Owner>,
    pub(crate) janitor: Janitor,
}

impl Site {
    pub(crate) fn prepare(options: &Options) -> Result<Site, StartError> {
        let installed = match &options.server {
            Installation::Embedded => None,
            Installation::Installed(folder) => Some(Programs::find(folder)?),
        };
        let refuse = |source| StartError::Folder { folder: options.folder.clone(), source };
        let folder = std::path::absolute(&options.folder).map_err(refuse)?;
        check_characters(&folder).map_err(refuse)?;
        check_socket_path(&folder)?;
        let janitor = Janitor::create(&folder).map_err(refuse)?;

        let programs = match &installed {
            Some(programs) => programs.clone(),
            None => embedded::unpack(&folder.join("runtime"))?,
        };
        let version = programs.version()?;
        DirBuilder::new()
            .mode(0o700)
            .create(folder.join("socket"))
            .map_err(StartError::io("make the socket's folder"))?;
        let owner = hand_over(&folder, &programs, installed.is_some())?;
        Ok(Site { programs, version, owner, janitor })
    }

    /// Makes the cluster and starts the server in it.
    pub(crate) async fn build(
        &mut self,
        password: &SecretString,
        timings: &mut StartTimings,
    ) -> Result<Child, StartError> {
        let begin = Instant::now();
        self.make_cluster(password).await?;
        timings.initdb = begin.elapsed();
        let begin = Instant::now();
        let server = self.launch().await?;
        timings.start = begin.elapsed();
        Ok(server)
    }

    /// Runs `initdb` and writes the configuration.
    async fn make_cluster(&mut self, password: &SecretString) -> Result<(), StartError> {
        let password_file = self.janitor.folder().join("password");
        self.write_password(&password_file, password)
            .map_err(StartError::io("hand the password to initdb"))?;
        let made = self.initdb(&password_file).await;
        fs::remove_file(&password_file).map_err(StartError::io("remove initdb's password file"))?;
        made?;

        configure(&self.data(), self.owner.as_ref()).map_err(StartError::io("configure the server"))
    }

    /// Starts the server with the files that `fill` writes into the folder that it gets.
    pub(crate) async fn revive(
        &mut self,
        fill: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
        timings: &mut StartTimings,
    ) -> Result<Child, StartError> {
        let begin = Instant::now();
        let (folder, data, owner) = (self.janitor.folder().to_owned(), self.data(), self.owner.clone());
        let filled = to_its_end(move || {
            filled_by_us(&folder, owner.as_ref(), || {
                DirBuilder::new().mode(0o700).create(&data)?;
                fill(&data)?;
                configure(&data, None)?;
                owner.as_ref().map_or(Ok(()), |owner| owner.take(&data))
            })
        });
        let filled = filled.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        filled.map_err(StartError::io("take the saved data"))?;
        timings.initdb = begin.elapsed();
        let begin = Instant::now();
        let server = self.launch().await?;
        timings.start = begin.elapsed();
        Ok(server)
    }

    async fn initdb(&mut self, password_file: &Path) -> Result<(), StartError> {
        let (program, data, log) = (self.programs.initdb.clone(), self.data(), self.log());
        let order = ServerProgram {
            program: &program,
            arguments: &[
                "-D".as_ref(),
                data.as_ref(),
                "-U".as_ref(),
                SUPERUSER.as_ref(),
                "--pwfile".as_ref(),
                password_file.as_ref(),
                "--auth=scram-sha-256".as_ref(),
                "--encoding=UTF8".as_ref(),
                "--locale=C".as_ref(),
                "--no-sync".as_ref(),
            ],
            owner: self.owner.as_ref(),
            log: &log,
            farewell: Farewell::Await,
        };
        let mut child = order.run(&mut self.janitor).await.map_err(StartError::io("run initdb"))?;
        match timeout(INITDB_LIMIT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(StartError::Ended { program: "initdb", status, log: last_lines(&log) }),
            Ok(Err(source)) => Err(StartError::io("wait for initdb")(source)),
            Err(_) => {
                kill_group(&child);
                Err(StartError::Slow { program: "initdb", limit: INITDB_LIMIT, log: last_lines(&log) })
            }
        }
    }

    /// Starts the server and waits until it takes connections.
    pub(crate) async fn launch(&mut self) -> Result<Child, StartError> {
        let (program, data, log) = (self.programs.postgres.clone(), self.data(), self.log());
        let port = PORT.to_string();
        // The last one holds also against settings in the data.
        let arguments: [&OsStr; 6] = [
            "-D".as_ref(),
            data.as_ref(),
            "-p".as_ref(),
            port.as_ref(),
            "-c".as_ref(),
            "listen_addresses=".as_ref(),
        ];
        let order = ServerProgram {
            program: &program,
            arguments: &arguments,
            owner: self.owner.as_ref(),
            log: &log,
            farewell: Farewell::Quit,
        };
        let mut child = order.run(&mut self.janitor).await.map_err(StartError::io("run postgres"))?;
        let lock_file = data.join("postmaster.pid");
        tokio::select! {
            ended = child.wait() => match ended {
                Ok(status) => Err(StartError::Ended { program: "postgres", status, log: last_lines(&log) }),
                Err(source) => Err(StartError::io("wait for postgres")(source)),
            },
            ready = timeout(START_LIMIT, until_ready(&lock_file)) => match ready {
                Ok(()) => Ok(child),
                Err(_) => Err(StartError::Slow { program: "postgres", limit: START_LIMIT, log: last_lines(&log) }),
            },
        }
    }

    /// For the server's user alone, and for the second that `initdb` takes.
    fn write_password(&self, path: &Path, password: &SecretString) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Some(owner) = &self.owner {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        writeln!(file, "{}", password.expose_secret())
    }

    /// Takes the folder from the server's user until [`Site::hand_over`], so that no link is in it.
    pub(crate) fn take_back(&self) -> io::Result<()> {
        self.owner.as_ref().map_or(Ok(()), |_| Owner::take_back(self.janitor.folder()))
    }

    /// Makes the server's user the owner of what was written below `path`, and of the folder.
    pub(crate) fn hand_over(&self, path: &Path) -> io::Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        owner.take(path)?;
        owner.take_folder(self.janitor.folder())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.janitor.folder().join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.janitor.folder().join("log")
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.janitor.folder().join("socket")
    }
}

/// Writes the server's settings, in place of those that an earlier start wrote.
fn configure(data: &Path, owner: Option<&Owner>) -> io::Result<()> {
    plain_file::replace(data, "pg_hba.conf", PG_HBA, owner)?;
    let text = plain_file::read(data, "postgresql.conf")?;
    let made = text.split(MARK).next().unwrap_or_default();
    plain_file::replace(data, "postgresql.conf", &format!("{made}{MARK}{SETTINGS}"), owner)
}

/// Calls `fill` while the folder is ours: its owner could put a link in the place of what is written.
fn filled_by_us(
    folder: &Path,
    owner: Option<&Owner>,
    fill: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let Some(owner) = owner else { return fill() };
    Owner::take_back(folder)?;
    fill()?;
    owner.take_folder(folder)
}

/// Makes the user that the server will run as the owner of the folder, and returns it (`None`: the present user).
fn hand_over(folder: &Path, programs: &Programs, installed: bool) -> Result<Option<Owner>, StartError> {
    let Some(owner) = Owner::choose() else { return Ok(None) };
    owner.take(folder).map_err(StartError::io("hand the folder to the server's user"))?;
    if owner.can_reach(folder, &programs.postgres).map_err(StartError::io("try the server's user"))? {
        return Ok(Some(owner));
    }
    if installed {
        return Err(StartError::Unreachable {
            user: owner.name,
            folder: folder.to_owned(),
            program: programs.postgres.clone(),
        });
    }
    tracing::warn!(user = owner.name, folder = %folder.display(), "the user cannot reach the folder: PostgreSQL runs as root");
    let root = Owner { name: "root".into(), uid: 0, gid: 0 };
    root.take(folder).map_err(StartError::io("take the folder back"))?;
    Ok(None)
}

/// PostgreSQL's programs call one another through a shell and put the path between double quotes, nothing more
/// (PostgreSQL, `find_other_exec`).
fn check_characters(folder: &Path) -> io::Result<()> {
    match folder.as_os_str().as_bytes().iter().find(|byte| b"\"$`\\\n".contains(byte)) {
        None => Ok(()),
        Some(&byte) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("PostgreSQL cannot work below a path with {:?} in it", char::from(byte)),
        )),
    }
}

fn check_socket_path(folder: &Path) -> Result<(), StartError> {
    check_socket_path_of(&folder.join("socket"), PORT)
}

/// Refuses a folder in which the path of a socket would be too long.
pub(crate) fn check_socket_path_of(folder: &Path, port: u16) -> Result<(), StartError> {
    let socket = folder.join(format!(".s.PGSQL.{port}"));
    match socket.as_os_str().as_bytes().len().checked_sub(SOCKET_PATH_LIMIT) {
        None | Some(0) => Ok(()),
        Some(excess) => Err(StartError::PathTooLong { folder: folder.to_owned(), excess }),
    }
}

/// Reads the server's lock file until its eighth line says "ready", as `pg_ctl` does (PostgreSQL, `pidfile.h`).
async fn until_ready(lock_file: &Path) {
    let mut ticks = interval(READY_INTERVAL);
    loop {
        ticks.tick().await;
        let text = fs::read_to_string(lock_file).unwrap_or_default();
        if text.lines().nth(7).is_some_and(|status| status.trim_end() == "ready") {
            return;
        }
    }
}
