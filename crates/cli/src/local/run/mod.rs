//! `pgentra local run`: an unchanged program finds itself on Azure.
//!
//! The program replaces this process, so that it has the terminal, the signals and the exit code.
//! Before that, this process puts itself into namespaces. A second process outside of them
//! ([`mod@relay`]) serves the sockets that were opened inside, and ends with the program.

mod arguments;
mod connector;
mod process;
mod relay;
mod report;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use pgentra_local::inside::{self, NamespacePlan};
use pgentra_local::{FOLDER_VARIABLE, NAME_VARIABLE, own_java_options};
use pgentra_system::{Env, System};

use super::arguments::{DEFAULT_NAME, LocalName, LocalRun, local_name};
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use process::this_program;
use report::RelayReport;

pub(crate) use arguments::{LocalConnector, LocalRelay};
pub(crate) use connector::serve as connect;
pub(crate) use relay::serve as relay;

/// The longest report of the relay in bytes: certificates, variables, names.
const REPORT: u64 = 1 << 20;

/// Puts this process into the namespaces and replaces it by the program. Must be called while the
/// process has one thread. Returns why the program does not run.
pub(crate) fn run(system: &System, arguments: &LocalRun) -> Problem {
    match become_program(system, arguments) {
        Err(problem) | Ok(problem) => problem,
    }
}

fn become_program(system: &System, arguments: &LocalRun) -> Outcome<Problem> {
    let env = system.env();
    let (plan, socket) = match start_relay(env, arguments)? {
        RelayReport::Ready { plan, socket } => (plan, socket),
        RelayReport::Failed { exit_code, error, hint } => {
            return Err(Problem::restored(Blame::of_exit_code(exit_code), None, error, hint));
        }
    };
    let stream =
        UnixStream::connect(&socket).map_err(|error| Problem::ours("cannot reach the relay", error))?;
    let listeners = inside::enter(&plan)?;
    let lost = |error| Problem::ours("cannot hand the sockets over to the relay", error);
    for (number, listener) in &listeners {
        inside::send(&stream, *number, Some(listener)).map_err(lost)?;
    }
    // The end of the list.
    inside::send(&stream, u8::MAX, None).map_err(lost)?;
    if !arguments.publish.is_empty() {
        start_connector(env, &socket)?;
    }
    inside::receive(&stream)
        .and_then(|answer| answer.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()))
        .map_err(lost)?;
    drop(listeners);
    let [program, words @ ..] = &arguments.program[..] else {
        return Err(Problem::new(Blame::Usage, "no program named"));
    };
    let mut command = Command::new(program);
    command.args(words);
    for name in NamespacePlan::unset(|name| env.has(name)) {
        command.env_remove(name);
    }
    command.env_remove(NAME_VARIABLE).env_remove(FOLDER_VARIABLE);
    command.envs(plan.variables(own_java_options(env).as_deref()));
    let error = command.exec();
    let name = program.to_string_lossy();
    let problem = Problem::new(Blame::Usage, format!("cannot run `{name}`: {error}"));
    Ok(match error.kind() {
        std::io::ErrorKind::NotFound => problem.hint("is it installed, and on the PATH?"),
        _ => problem,
    })
}

/// Starts the relay, and waits until it knows what the namespaces need.
fn start_relay(env: &Env, arguments: &LocalRun) -> Outcome<RelayReport> {
    let given = &arguments.name.name;
    let here = || env.get(NAME_VARIABLE).filter(|name| local_name(name).is_ok());
    let name = match given.is_empty() {
        true => here().unwrap_or_else(|| DEFAULT_NAME.to_owned()),
        false => given.clone(),
    };
    let words = LocalRelay {
        name: LocalName { name },
        host: arguments.host,
        publish: arguments.publish.clone(),
        reach: arguments.reach.clone(),
        program: std::process::id().try_into().unwrap_or(i32::MAX),
        detached: false,
    };
    let mut child = this_program(env, relay::COMMAND)?
        .args(words.words())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Problem::ours("cannot start the relay", error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout.take(REPORT))
            .read_line(&mut line)
            .map_err(|error| Problem::ours("cannot hear from the relay", error))?;
    }
    // This process has ended already: it started the relay, which is no child of the program.
    child.wait().map_err(|error| Problem::ours("cannot wait for the relay", error))?;
    serde_json::from_str(&line)
        .map_err(|_| Problem::new(Blame::Ours, "the relay ended before it was ready").hint("-vv shows more"))
}

/// Starts the process in the namespaces that connects to published ports. It is no child of the
/// program either.
fn start_connector(env: &Env, socket: &std::path::Path) -> Outcome {
    let mut command = this_program(env, connector::COMMAND)?;
    let started = command.arg("--socket").arg(socket).stdout(Stdio::null()).status();
    let status = started.map_err(|error| Problem::ours("cannot start the connector", error))?;
    match status.success() {
        true => Ok(()),
        false => Err(Problem::new(Blame::Ours, "the connector did not start").hint("-vv shows more")),
    }
}
