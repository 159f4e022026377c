//! The command lines of `pgentra psql` and `pgentra exec`.

use std::ffi::OsString;

use clap::Args;

use crate::options::{Connection, Identity};

/// Arguments of `pgentra psql`.
#[derive(Debug, Args)]
pub(crate) struct Psql {
    #[command(flatten)]
    pub(crate) access: Access,
    /// Arguments for psql itself.
    #[arg(last = true, value_name = "PSQL OPTIONS")]
    pub(crate) arguments: Vec<OsString>,
}

/// Arguments of `pgentra exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) access: Access,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) program: Vec<OsString>,
}

/// The server, the identity, and how the program reaches the server.
#[derive(Debug, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
    #[command(flatten)]
    pub(crate) way: Way,
}

/// How the program reaches the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Way to the server")]
pub(crate) struct Way {
    /// Listen on 127.0.0.1 instead of a Unix socket, for programs that cannot use one, such as
    /// those with JDBC. PGPASSWORD is then a password that is valid for this listener alone. On
    /// Windows it is always so.
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Let the program connect to the server by itself, with the token in PGPASSWORD. After the
    /// token's expiry it cannot connect again.
    #[arg(long, conflicts_with = "tcp")]
    pub(crate) direct: bool,
}

/// Arguments of the hidden command: the program's, and whose listener this is.
#[cfg(unix)]
#[derive(Debug, Args)]
pub(crate) struct ExecListener {
    #[command(flatten)]
    pub(crate) access: Access,
    /// Process id of the program.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) program: i32,
    /// Serve in this process instead of a further one.
    #[arg(long)]
    pub(crate) detached: bool,
}
