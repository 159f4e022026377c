//! `pgentra psql` and `pgentra exec`: run a program that connects with an Entra token.
//!
//! The program replaces this process, so that it has the terminal, the signals and the exit code. A
//! second process serves a listener of the auth proxy for it ([`listener`]), and ends with it.

mod arguments;
mod client;
mod listener;
pub(crate) mod psql_options;
mod words;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pgentra_system::System;

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::sign_in;

pub(crate) use arguments::{Exec, ExecListener, Psql};
pub(crate) use listener::serve;

use arguments::Access;

/// Replaces this process by psql.
pub(crate) async fn psql(system: &System, arguments: Psql) -> Outcome {
    become_program(system, &arguments.access, "psql".into(), arguments.arguments).await
}

/// Replaces this process by a program that uses PostgreSQL.
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
    } else {
        let target = sign_in::target(system, &access.connection)?;
        let reached = waiting("waiting for a token", client::start(system.env(), access)).await?;
        reached.apply(&target, &mut command);
    }
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
