//! `pgentra`: PostgreSQL without passwords, on Azure identities.
#![cfg_attr(
    windows,
    expect(dead_code, reason = "the local cloud, and the listener in another process, are for Unix")
)]

mod arguments;
mod blame;
mod catalogue;
mod command;
mod confirm;
mod doctor;
#[cfg(unix)]
mod gateway;
mod grant;
mod identity;
mod input;
mod kubernetes;
mod launch;
#[cfg(unix)]
mod local;
mod markdown;
mod options;
mod output;
mod platform;
mod problem;
mod progress;
mod proxy;
mod role;
mod service;
mod sign_in;
mod sql;
mod table;
mod text;
mod time;
mod token_file;
mod usage;
mod wrap;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(unix)]
use pgentra_gateway_config::GatewayConfiguration;
use pgentra_proxy_config::{Configuration, LogFormat};
use pgentra_system::System;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use arguments::Command;
use blame::Blame;
use platform::{allow_files, leave_no_core_file};
use problem::{Outcome, Problem};

/// How long the exit waits for threads whose answers are not needed any more.
const EXIT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    command::completions::answer();
    let system = System::real();
    output::set_columns(system.env());
    let words: Vec<_> = std::env::args_os().collect();
    let arguments = match usage::parse(words.clone()) {
        Ok(arguments) => arguments,
        Err(answer) if usage::is_answer(&answer) => answer.exit(),
        Err(error) => {
            let problem = usage::problem(&error, &words);
            // There, 2 means a difference.
            let is_plan = words.iter().any(|word| word == "--exit-code");
            return failed(&if is_plan { problem.blaming(Blame::Ours) } else { problem });
        }
    };
    let is_proxy = is_service(&arguments.command);
    let format = log_format(&system, &arguments.command);
    if let Err(problem) = log(&system, arguments.verbose, (format, is_proxy)) {
        return failed(&problem);
    }
    // A user namespace can be entered by a process with one thread alone, whose files in /proc are its
    // user's.
    #[cfg(target_os = "linux")]
    if let Command::Local(local::arguments::Local::Run(arguments)) = &arguments.command {
        return failed(&local::run::run(&system, arguments));
    }
    leave_no_core_file();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if relays(&arguments.command) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        runtime.worker_threads(relaying_threads(processors));
        allow_files();
    }
    let outcome = runtime
        .enable_all()
        .build()
        .map_err(|error| Problem::ours("cannot start the runtime", error))
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(&system, arguments.command, arguments.verbose > 0));
            // Drops every task, which ends the programs that tasks have started, such as a token
            // command. A resolver thread that hangs delays the exit no longer than that.
            runtime.shutdown_timeout(EXIT);
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => failed(&problem),
    }
}

fn failed(problem: &Problem) -> ExitCode {
    if !problem.is_told() {
        output::problem(problem);
    }
    problem.exit_code()
}

/// Threads of the proxy's relay. Half of the processors: waking another thread costs more than the
/// relay's work, and the server and clients on this machine need processors too.
fn relaying_threads(processors: usize) -> usize {
    (processors / 2).max(1)
}

/// Whether the command is a server program with a log of its own.
fn is_service(command: &Command) -> bool {
    match command {
        Command::Proxy(_) => true,
        #[cfg(unix)]
        Command::Gateway(_) => true,
        _ => false,
    }
}

/// Whether this process relays sessions of other programs.
fn relays(command: &Command) -> bool {
    match command {
        Command::Proxy(_) => true,
        #[cfg(unix)]
        Command::Gateway(_) | Command::ExecListener(_) => true,
        // The program's listener is in this process.
        #[cfg(windows)]
        Command::Psql(_) | Command::Exec(_) => true,
        _ => false,
    }
}

async fn run(system: &System, command: Command, is_verbose: bool) -> Outcome {
    #[cfg(unix)]
    if uses_environment(&command) {
        local::stale::check(system).await?;
    }
    match command {
        #[cfg(unix)]
        Command::Quickstart(arguments) => command::quickstart::run(system, arguments).await,
        Command::Token(arguments) => command::token::run(system, arguments).await,
        Command::Whoami(arguments) => command::whoami::run(system, arguments).await,
        Command::Query(arguments) => command::query::run(system, arguments, is_verbose).await,
        Command::Psql(arguments) => launch::psql(system, arguments).await,
        Command::Exec(arguments) => launch::exec(system, arguments).await,
        #[cfg(unix)]
        Command::ExecListener(arguments) => launch::serve(system, arguments).await,
        #[cfg(target_os = "linux")]
        Command::LocalRelay(arguments) => local::run::relay(system, arguments).await,
        #[cfg(target_os = "linux")]
        Command::LocalConnector(arguments) => local::run::connect(system, &arguments),
        Command::Doctor(arguments) => doctor::run(system, arguments, is_verbose).await,
        Command::Proxy(arguments) => proxy::run(system, arguments).await,
        #[cfg(unix)]
        Command::Gateway(arguments) => gateway::run(system, *arguments).await,
        Command::Grant(arguments) => grant::run(system, arguments).await,
        Command::Revoke(arguments) => grant::revoke(system, arguments).await,
        Command::Identity(command) => identity::run(system, command, is_verbose).await,
        Command::Role(command) => role::run(system, command, is_verbose).await,
        Command::Kubernetes(command) => kubernetes::run(system, command).await,
        #[cfg(unix)]
        Command::Local(command) => local::run(system, command, is_verbose).await,
        Command::Completions { shell } => command::completions::run(shell),
        Command::Man { command, dir } => command::manual::run(&command, dir.as_deref()),
        Command::Version => output::result(&arguments::definition().render_version()),
    }
}

/// Whether a command gets tokens or connects with the settings of the environment, which may be those
/// of a local cloud.
#[cfg(unix)]
fn uses_environment(command: &Command) -> bool {
    match command {
        Command::Doctor(arguments) => arguments.explain.is_none(),
        Command::Proxy(arguments) => arguments.command.is_none(),
        Command::Token(_)
        | Command::Whoami(_)
        | Command::Query(_)
        | Command::Psql(_)
        | Command::Exec(_)
        | Command::ExecListener(_)
        | Command::Grant(_)
        | Command::Revoke(_)
        | Command::Identity(_)
        | Command::Role(_) => true,
        Command::Quickstart(_)
        | Command::Gateway(_)
        | Command::Kubernetes(_)
        | Command::Local(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Version => false,
        #[cfg(target_os = "linux")]
        Command::LocalRelay(_) | Command::LocalConnector(_) => false,
    }
}

fn log_format(system: &System, command: &Command) -> LogFormat {
    match command {
        Command::Proxy(arguments) => Configuration::log_format(system, &arguments.sources()),
        #[cfg(unix)]
        Command::Gateway(arguments) => GatewayConfiguration::log_format(system, &arguments.sources()),
        _ => LogFormat::Text,
    }
}

/// # Errors
///
/// An invalid filter in `PGENTRA_LOG`.
fn log(system: &System, verbose: u8, (format, is_proxy): (LogFormat, bool)) -> Outcome {
    // A target is a prefix: `pgentra` stands for every crate of the workspace.
    let (ours, others) = match verbose {
        0 => (LevelFilter::WARN, LevelFilter::WARN),
        1 => (LevelFilter::INFO, LevelFilter::WARN),
        _ => (LevelFilter::DEBUG, LevelFilter::INFO),
    };
    let filter: Targets = match system.env().get("PGENTRA_LOG") {
        Some(filter) => filter.parse().map_err(|error| {
            Problem::new(Blame::Usage, format!("PGENTRA_LOG cannot be `{filter}`: {error}")).hint(
                "it takes a level, or a filter such as pgentra_identity=debug,warn; levels are off, error, warn, info, debug and trace",
            )
        })?,
        None => Targets::new().with_target("pgentra", ours).with_default(others),
    };
    if !is_proxy && format == LogFormat::Text && std::io::stderr().is_terminal() {
        let lines =
            tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(|| progress::Stderr);
        let tries = progress::Tries.with_filter(filter_fn(|of| of.target() == progress::RETRIES));
        let colour = output::has_colour(&std::io::stderr());
        let lines = lines.compact().with_ansi(colour).fmt_fields(output::log_fields());
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(tries).init();
        return Ok(());
    }
    // A closed stderr is not an error.
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => {
            let colour = output::has_colour(&std::io::stderr());
            let lines = lines.compact().with_ansi(colour).fmt_fields(output::log_fields());
            registry.with(lines.with_filter(filter)).init();
        }
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_ansi(false).with_filter(filter)).init();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_always_has_a_thread() {
        assert_eq!([1, 2, 3, 8].map(relaying_threads), [1, 1, 1, 4]);
    }
}
