use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why no PostgreSQL was started. Files that had been created are removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder is there already, or cannot be made, or its watcher cannot be started.
    #[error("cannot take {} as the folder of a local PostgreSQL", folder.display())]
    Folder {
        /// The folder that was to be created.
        folder: PathBuf,
        /// What stood in the way.
        source: io::Error,
    },
    /// A Unix socket in this folder would have a longer path than the system can hold.
    #[error("the folder's path is too long for a Unix socket by {excess} bytes: {}", folder.display())]
    PathTooLong {
        /// The folder that was to be created.
        folder: PathBuf,
        /// Bytes over the limit of the system.
        excess: usize,
    },
    /// This build carries no PostgreSQL: the feature `embedded` is off, or there is none for this system.
    #[error("this build carries no PostgreSQL of its own: name an installed one")]
    NotEmbedded,
    /// The folder given for an installed PostgreSQL holds none.
    #[error("no PostgreSQL server in {}: neither bin/postgres with bin/initdb, nor postgres with initdb", folder.display())]
    NotInstalled {
        /// The folder that was searched.
        folder: PathBuf,
    },
    /// The installed PostgreSQL is older than the oldest one that this crate can run, or does not say what it is.
    #[error("PostgreSQL {oldest} or later is needed, and {} says: {answer:?}", program.display())]
    Version {
        /// The server program that was asked.
        program: PathBuf,
        /// What it answered, at most a line.
        answer: String,
        /// The oldest major version that will do.
        oldest: u32,
    },
    /// Files of a server can be used by their major version only.
    #[error("the data is of PostgreSQL {saved}, and the server is PostgreSQL {found}")]
    OtherVersion {
        /// The version that wrote the data, such as "17.5".
        saved: String,
        /// The version of the server that was to start.
        found: String,
    },
    /// Files of a server can be used by processors and systems of their kind only.
    #[error("the data is of PostgreSQL on {saved}, and this machine is {found}")]
    OtherPlatform {
        /// The platform that wrote the data, such as "x86_64-linux".
        saved: String,
        /// That of this machine.
        found: String,
    },
    /// We are root; an installed PostgreSQL refuses to run as root; and the unprivileged user cannot reach one of the
    /// two folders.
    #[error(
        "user {user} must be able to enter {} and to run {}: a PostgreSQL does not run as root",
        folder.display(), program.display()
    )]
    Unreachable {
        /// The user that the server would run as.
        user: String,
        /// The folder of the local PostgreSQL.
        folder: PathBuf,
        /// The server program, which the user cannot execute.
        program: PathBuf,
    },
    /// No PgBouncer was found where it was looked for.
    #[error("there is no program pgbouncer")]
    NoPooler,
    /// The installed PgBouncer is older than the oldest one that this crate can run, or does not say what it is.
    #[error("PgBouncer 1.18 or later is needed, and {} says: {answer:?}", program.display())]
    PoolerVersion {
        /// The program that was asked.
        program: PathBuf,
        /// What it answered, at most a line.
        answer: String,
    },
    /// A file of the server could not be written or a program of it could not be run.
    #[error("cannot {task}")]
    Io {
        /// What was being done, as a verb phrase.
        task: &'static str,
        /// What stood in the way.
        source: io::Error,
    },
    /// `initdb` failed, or `postgres` ended during the start.
    #[error("{program} ended ({status}); its last lines were:\n{log}")]
    Ended {
        /// The program that ended: `initdb` or `postgres`.
        program: &'static str,
        /// Its exit status, or the signal that ended it.
        status: std::process::ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// `initdb` or `postgres` did not get ready in time.
    #[error("{program} was not ready within {} seconds; its last lines were:\n{log}", limit.as_secs())]
    Slow {
        /// The program that was not ready: `initdb` or `postgres`.
        program: &'static str,
        /// The time that it had.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
}

impl StartError {
    pub(crate) fn io(task: &'static str) -> impl Fn(io::Error) -> StartError {
        move |source| StartError::Io { task, source }
    }
}
