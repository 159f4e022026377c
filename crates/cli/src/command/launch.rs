//! `pgentra psql` and `pgentra exec`: a libpq program, signed in.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pgentra_connect::Connector;
use pgentra_system::System;

use crate::arguments::{Exec, Psql};
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::sign_in;

/// Replaces this process by psql with an Entra token.
pub(crate) async fn psql(system: &System, arguments: Psql) -> Outcome {
    let connector = sign_in::connector(system, &arguments.connection, &arguments.identity)?;
    become_program(&connector, "psql".into(), arguments.arguments).await
}

/// Replaces this process by a libpq program with an Entra token.
pub(crate) async fn exec(system: &System, arguments: Exec) -> Outcome {
    let connector = sign_in::connector(system, &arguments.connection, &arguments.identity)?;
    let mut words = arguments.program.into_iter();
    let program = words.next().ok_or_else(|| Problem::new(Blame::Usage, "no program named"))?;
    become_program(&connector, program, words.collect()).await
}

/// Replaces this process by the program, so that it has the signals, terminal and exit code.
/// Returns only on failure.
async fn become_program(connector: &Connector, program: OsString, arguments: Vec<OsString>) -> Outcome {
    let environment = waiting("waiting for a token", connector.libpq_environment()).await?;
    let mut command = Command::new(&program);
    environment.apply(command.args(arguments));
    let error = command.exec();
    let name = program.to_string_lossy().into_owned();
    let problem = Problem::new(Blame::Usage, format!("cannot run `{name}`: {error}"));
    Err(match (error.kind(), name.as_str()) {
        (std::io::ErrorKind::NotFound, "psql") => problem
            .hint("install psql (Debian: apt-get install postgresql-client), or use: pgentra query -c SQL"),
        (std::io::ErrorKind::NotFound, _) => problem.hint("is it installed, and on the PATH?"),
        _ => problem,
    })
}
