//! `pgentra psql` and `pgentra exec`: run a program that connects with an Entra token.
//!
//! The program replaces this process, so that it has the terminal, the signals and the exit code. A
//! second process ([`process`]) serves a listener of the auth proxy for it ([`listener`]), and ends
//! with it. Where a process cannot be replaced, the program is its child (`child.rs`).

mod arguments;
#[cfg(windows)]
mod child;
#[cfg(unix)]
mod client;
mod listener;
#[cfg(unix)]
mod process;
pub(crate) mod psql_options;
mod reached;
#[cfg(unix)]
mod words;

use std::ffi::OsString;
use std::process::Command;

use pgentra_system::System;

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::sign_in;

#[cfg(unix)]
pub(crate) use arguments::ExecListener;
pub(crate) use arguments::{Exec, Psql};
#[cfg(target_os = "linux")]
pub(crate) use process::end_of;
#[cfg(unix)]
pub(crate) use process::serve;

use arguments::Access;
#[cfg(windows)]
use child::run;
#[cfg(unix)]
use client::run;

/// How psql is installed.
const INSTALL: &str = if cfg!(windows) {
    ", which comes with PostgreSQL"
} else {
    " (Debian: apt-get install postgresql-client)"
};

/// Runs psql in place of this process.
pub(crate) async fn psql(system: &System, arguments: Psql) -> Outcome {
    become_program(system, &arguments.access, "psql".into(), arguments.arguments).await
}

/// Runs a program that uses PostgreSQL in place of this process.
pub(crate) async fn exec(system: &System, arguments: Exec) -> Outcome {
    let mut words = arguments.program.into_iter();
    let program = words.next().ok_or_else(|| Problem::new(Blame::Usage, "no program named"))?;
    become_program(system, &arguments.access, program, words.collect()).await
}

/// Returns only on failure.
async fn become_program(
    system: &System,
    access: &Access,
    program: OsString,
    arguments: Vec<OsString>,
) -> Outcome {
    let mut command = Command::new(&program);
    command.args(arguments);
    if access.way.direct {
        let connector = sign_in::connector(system, &access.connection, &access.identity)?;
        waiting("waiting for a token", connector.libpq_environment()).await?.apply(&mut command);
    }
    let target = (!access.way.direct).then(|| sign_in::target(system, &access.connection)).transpose()?;
    let error = run(system, (access, target), command).await?;
    let name = program.to_string_lossy().into_owned();
    let problem = Problem::new(Blame::Usage, format!("cannot run `{name}`: {error}"));
    Err(match (error.kind(), name.as_str()) {
        (std::io::ErrorKind::NotFound, "psql") => {
            problem.hint(format!("install psql{INSTALL}, or use: pgentra query -c SQL"))
        }
        (std::io::ErrorKind::NotFound, _) => problem.hint("is it installed, and on the PATH?"),
        _ => problem,
    })
}
