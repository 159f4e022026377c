//! A PgBouncer in front of a local PostgreSQL.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use crate::blocking::to_its_end;
use crate::error::StartError;
use crate::janitor::{Farewell, Janitor};
use crate::local_db::LocalDb;
use crate::owner::Owner;
use crate::plain_file;
use crate::process::{ServerProgram, last_lines};
use crate::server::once_free;
use crate::site::check_socket_path_of;

/// The port that names the socket; nothing listens on TCP. It is Azure's.
const PORT: u16 = 6432;
/// It is ready within milliseconds. This is for a very busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is tried to connect.
const READY_INTERVAL: Duration = Duration::from_millis(10);
/// The first version with `max_prepared_statements` (PgBouncer, NEWS, 1.21.0).
const TRACKS_STATEMENTS: (u32, u32) = (1, 21);

/// The query by which it reads a role's password. Names are qualified: the database is the client's, and so may be what
/// its `search_path` finds.
const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL ELSE rolpassword END \
     FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

/// An installed PgBouncer, 1.18 or later.
#[derive(Debug, Clone)]
pub struct PoolerProgram {
    program: PathBuf,
    version: (u32, u32),
}

/// The settings of a PgBouncer, with the meanings of its documentation. The default is Azure's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolerSettings {
    /// `default_pool_size`.
    pub default_pool_size: u32,
    /// `ignore_startup_parameters`: names with commas.
    pub ignore_startup_parameters: String,
    /// `max_client_conn`.
    pub max_client_conn: u32,
    /// `max_prepared_statements`. Without effect before PgBouncer 1.21, which does not have it.
    pub max_prepared_statements: u32,
    /// `min_pool_size`.
    pub min_pool_size: u32,
    /// `pool_mode`: `session`, `transaction` or `statement`.
    pub pool_mode: String,
    /// `query_wait_timeout`, in seconds.
    pub query_wait_timeout: u32,
    /// `server_idle_timeout`, in seconds.
    pub server_idle_timeout: u32,
}

impl Default for PoolerSettings {
    fn default() -> Self {
        Self {
            default_pool_size: 50,
            ignore_startup_parameters: String::new(),
            max_client_conn: 5000,
            max_prepared_statements: 0,
            min_pool_size: 0,
            pool_mode: "transaction".to_owned(),
            query_wait_timeout: 120,
            server_idle_timeout: 600,
        }
    }
}

/// A running PgBouncer. Dropping it ends it at once with all its connections, removes its folder, and blocks until both
/// are done; so does the end of this process.
#[derive(Debug)]
pub struct LocalPooler {
    child: Child,
    program: PoolerProgram,
    owner: Option<Owner>,
    server: PooledServer,
    // Must be the last field: fields are dropped in order, and the handle of the process has to be dropped first.
    janitor: Janitor,
}

/// The PostgreSQL behind a PgBouncer, and the superuser as which it looks for passwords.
#[derive(Debug, Clone)]
pub struct PooledServer {
    socket_dir: PathBuf,
    port: u16,
    superuser: String,
    password: SecretString,
}

impl PooledServer {
    /// This server.
    pub fn of(database: &LocalDb) -> Self {
        Self {
            socket_dir: database.socket_dir().to_path_buf(),
            port: database.port(),
            superuser: database.superuser().to_owned(),
            password: database.password().clone(),
        }
    }
}

impl PoolerProgram {
    /// Looks for `pgbouncer` in these folders, in this order.
    ///
    /// # Errors
    /// [`StartError::NoPooler`] if there is none, or another error if it does not say its version or is too old.
    pub fn find(folders: impl IntoIterator<Item = PathBuf>) -> Result<Self, StartError> {
        let mut programs = folders.into_iter().map(|folder| folder.join("pgbouncer"));
        let program = programs.find(|program| program.is_file()).ok_or(StartError::NoPooler)?;
        let ask = || Command::new(&program).arg("--version").env_clear().output();
        let output = once_free(ask).map_err(StartError::io("ask PgBouncer for its version"))?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let answer = answer.lines().next().unwrap_or_default();
        match version(answer) {
            Some(version) if version >= OLDEST => Ok(Self { program, version }),
            _ => Err(StartError::PoolerVersion { program, answer: answer.chars().take(200).collect() }),
        }
    }

    /// Whether it has `max_prepared_statements`.
    pub fn tracks_prepared_statements(&self) -> bool {
        self.version >= TRACKS_STATEMENTS
    }
}

/// The oldest version that the tests were run with.
const OLDEST: (u32, u32) = (1, 18);

/// From "PgBouncer 1.18.0".
fn version(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.strip_prefix("PgBouncer ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Starts a PgBouncer for every database of a server and waits until it takes connections.
///
/// It listens only on a Unix socket in `folder`, which it makes and which its user alone can enter; that user is the
/// one of the PostgreSQL. It asks each role for its SCRAM password, with which it signs in at the PostgreSQL. The
/// superuser may use the admin console (`stats_users`); its password is in a file of the folder.
///
/// Cancel-safe: dropped before it is done, it removes whatever it made, and blocks until that is done.
///
/// # Errors
/// See [`StartError`]. After an error nothing is left server.
pub async fn start_pooler(
    folder: PathBuf,
    program: &PoolerProgram,
    settings: &PoolerSettings,
    server: &PooledServer,
) -> Result<LocalPooler, StartError> {
    check_socket_path_of(&folder, PORT)?;
    let made = to_its_end({
        let program = program.program.clone();
        move || prepare(&folder, &program)
    });
    let (mut janitor, owner) = match made.await {
        Ok(made) => made?,
        Err(panicked) => return Err(StartError::io("prepare the folder")(io::Error::other(panicked))),
    };
    let folder = janitor.folder().to_path_buf();
    let begun = async {
        write(&folder, owner.as_ref(), program, settings, server)
            .map_err(StartError::io("configure PgBouncer"))?;
        launch(&mut janitor, owner.as_ref(), program).await
    };
    match begun.await {
        Ok(child) => {
            Ok(LocalPooler { child, program: program.clone(), owner, server: server.clone(), janitor })
        }
        Err(error) => {
            // The clean-up blocks. It runs to its end also if this future is dropped.
            let _ = spawn_blocking(move || drop(janitor)).await;
            Err(error)
        }
    }
}

impl LocalPooler {
    /// The folder of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.janitor.folder()
    }

    /// The port, which is part of the socket's name.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it other settings, which it reads at once (SIGHUP). Sessions go on.
    ///
    /// # Errors
    /// If the files cannot be written, or it has ended.
    pub fn configure(&self, settings: &PoolerSettings) -> io::Result<()> {
        write(self.janitor.folder(), self.owner.as_ref(), &self.program, settings, &self.server)?;
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let ended = || io::Error::other("PgBouncer has ended");
        Ok(kill_process(pid.ok_or_else(ended)?, Signal::HUP)?)
    }

    /// Ends it with all its connections, and removes its folder. Cancel-safe: cancelled, it goes on as dropping does.
    pub async fn stop(self) {
        // Blocks for some milliseconds.
        let _ = spawn_blocking(move || drop(self)).await;
    }
}

/// Makes the folder, for the user as which it will run (`None`: the present user).
fn prepare(folder: &Path, program: &Path) -> Result<(Janitor, Option<Owner>), StartError> {
    let refuse = |source| StartError::Folder { folder: folder.to_owned(), source };
    let janitor = Janitor::create(folder).map_err(refuse)?;
    let owner = Owner::choose();
    if let Some(owner) = &owner {
        owner.take(janitor.folder()).map_err(StartError::io("hand the folder to PgBouncer's user"))?;
        if !owner.can_reach(janitor.folder(), program).map_err(StartError::io("try PgBouncer's user"))? {
            return Err(StartError::Unreachable {
                user: owner.name.clone(),
                folder: janitor.folder().to_owned(),
                program: program.to_owned(),
            });
        }
    }
    Ok((janitor, owner))
}

fn write(
    folder: &Path,
    owner: Option<&Owner>,
    program: &PoolerProgram,
    settings: &PoolerSettings,
    server: &PooledServer,
) -> io::Result<()> {
    // At once: PgBouncer may read them at any time.
    plain_file::replace(folder, "users", &users(server), owner)?;
    plain_file::replace(folder, "pgbouncer.ini", &configuration(folder, program, settings, server), owner)
}

/// The file of passwords (PgBouncer, "Authentication File Format").
fn users(server: &PooledServer) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    format!("{} {}\n", quoted(&server.superuser), quoted(server.password.expose_secret()))
}

fn configuration(
    folder: &Path,
    program: &PoolerProgram,
    settings: &PoolerSettings,
    server: &PooledServer,
) -> String {
    let PoolerSettings {
        default_pool_size,
        ignore_startup_parameters,
        max_client_conn,
        max_prepared_statements,
        min_pool_size,
        pool_mode,
        query_wait_timeout,
        server_idle_timeout,
    } = settings;
    let host = server.socket_dir.to_string_lossy().replace('\'', "''");
    let folder = folder.display();
    let prepared = match program.tracks_prepared_statements() {
        true => format!("max_prepared_statements = {max_prepared_statements}\n"),
        false => String::new(),
    };
    format!(
        "[databases]\n\
         * = host='{host}' port={port}\n\
         [pgbouncer]\n\
         unix_socket_dir = {folder}\n\
         unix_socket_mode = 0700\n\
         listen_port = {PORT}\n\
         auth_type = scram-sha-256\n\
         auth_file = {folder}/users\n\
         auth_user = {superuser}\n\
         auth_query = {AUTH_QUERY}\n\
         stats_users = {superuser}\n\
         pool_mode = {pool_mode}\n\
         default_pool_size = {default_pool_size}\n\
         min_pool_size = {min_pool_size}\n\
         max_client_conn = {max_client_conn}\n\
         query_wait_timeout = {query_wait_timeout}\n\
         server_idle_timeout = {server_idle_timeout}\n\
         ignore_startup_parameters = {ignore_startup_parameters}\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         {prepared}",
        port = server.port,
        superuser = server.superuser,
    )
}

async fn launch(
    janitor: &mut Janitor,
    owner: Option<&Owner>,
    program: &PoolerProgram,
) -> Result<Child, StartError> {
    let folder = janitor.folder().to_path_buf();
    let (file, log) = (folder.join("pgbouncer.ini"), folder.join("log"));
    let arguments: [&OsStr; 1] = [file.as_ref()];
    let order = ServerProgram {
        program: &program.program,
        arguments: &arguments,
        owner,
        log: &log,
        farewell: Farewell::Kill,
    };
    let mut child = order.run(janitor).await.map_err(StartError::io("run pgbouncer"))?;
    let socket = folder.join(format!(".s.PGSQL.{PORT}"));
    tokio::select! {
        ended = child.wait() => match ended {
            Ok(status) => Err(StartError::Ended { program: "pgbouncer", status, log: last_lines(&log) }),
            Err(source) => Err(StartError::io("wait for pgbouncer")(source)),
        },
        ready = timeout(START_LIMIT, until_ready(&socket)) => match ready {
            Ok(()) => Ok(child),
            Err(_) => Err(StartError::Slow { program: "pgbouncer", limit: START_LIMIT, log: last_lines(&log) }),
        },
    }
}

async fn until_ready(socket: &Path) {
    let mut ticks = interval(READY_INTERVAL);
    loop {
        ticks.tick().await;
        if UnixStream::connect(socket).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_are_read() {
        for (answer, expected) in [
            ("PgBouncer 1.18.0", Some((1, 18))),
            ("PgBouncer 1.25.1", Some((1, 25))),
            ("PgBouncer 1", None),
            ("pgbouncer", None),
        ] {
            assert_eq!(version(answer), expected, "{answer}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named_and_an_old_one_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let find = || PoolerProgram::find([PathBuf::from("/nonexistent"), folder.path().to_owned()]);
        assert_eq!(find().unwrap_err().to_string(), "there is no program pgbouncer");
        let program = folder.path().join("pgbouncer");
        fs::write(&program, "#!/bin/sh\necho 'PgBouncer 1.8.1'\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = find().unwrap_err().to_string();
        assert!(refused.contains("1.18 or later is needed") && refused.contains("1.8.1"), "{refused}");
    }

    #[test]
    fn values_are_quoted_and_old_versions_get_no_new_setting() {
        let server = PooledServer {
            socket_dir: "/tmp/it's".into(),
            port: 5432,
            superuser: "azuresu".to_owned(),
            password: "se\"cret".to_owned().into(),
        };
        let settings = PoolerSettings::default();
        assert_eq!(users(&server), "\"azuresu\" \"se\"\"cret\"\n");
        for (version, expected) in [((1, 18), false), ((1, 21), true)] {
            let program = PoolerProgram { program: "pgbouncer".into(), version };
            let text = configuration(Path::new("/tmp/f"), &program, &settings, &server);
            assert!(text.contains("* = host='/tmp/it''s' port=5432\n"), "{text}");
            assert_eq!(text.contains("max_prepared_statements = 0\n"), expected, "{text}");
        }
    }
}
