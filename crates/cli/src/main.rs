//! `pgentra`: PostgreSQL without passwords, on Azure identities.

mod arguments;
mod blame;
mod catalogue;
mod command;
mod confirm;
mod doctor;
mod gateway;
mod grant;
mod identity;
mod launch;
mod local;
mod markdown;
mod options;
mod output;
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

use pgentra_gateway_config::GatewayConfiguration;
use pgentra_proxy_config::{Configuration, LogFormat};
use pgentra_system::System;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use arguments::Command;
use blame::Blame;
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
    let is_proxy = matches!(arguments.command, Command::Proxy(_) | Command::Gateway(_));
    let format = log_format(&system, &arguments.command);
    if let Err(problem) = log(&system, arguments.verbose, (format, is_proxy)) {
        return failed(&problem);
    }
    leave_no_core_file();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if is_proxy || matches!(arguments.command, Command::ExecListener(_)) {
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

/// Raises the limit of open files to the user's maximum: each session needs two, and the default of
/// 1,024 is for programs that use select(2). Child processes inherit it.
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "no more than {:?} files can be open", limit.current);
    }
}

/// Prevents core dumps, which would contain tokens and keys, and access by other processes of the
/// same user. Child processes are not affected.
#[cfg(target_os = "linux")]
fn leave_no_core_file() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a crash could leave a core file with a token in it");
    }
}

/// On other systems a core limit of zero bytes. Child processes inherit it.
#[cfg(not(target_os = "linux"))]
fn leave_no_core_file() {
    use rustix::process::{Resource, Rlimit, setrlimit};

    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "a crash could leave a core file with a token in it");
    }
}

async fn run(system: &System, command: Command, is_verbose: bool) -> Outcome {
    if uses_environment(&command) {
        local::stale::check(system).await?;
    }
    match command {
        Command::Quickstart(arguments) => command::quickstart::run(system, arguments).await,
        Command::Token(arguments) => command::token::run(system, arguments).await,
        Command::Whoami(arguments) => command::whoami::run(system, arguments).await,
        Command::Query(arguments) => command::query::run(system, arguments, is_verbose).await,
        Command::Psql(arguments) => launch::psql(system, arguments).await,
        Command::Exec(arguments) => launch::exec(system, arguments).await,
        Command::ExecListener(arguments) => launch::serve(system, arguments).await,
        Command::Doctor(arguments) => doctor::run(system, arguments, is_verbose).await,
        Command::Proxy(arguments) => proxy::run(system, arguments).await,
        Command::Gateway(arguments) => gateway::run(system, *arguments).await,
        Command::Grant(arguments) => grant::run(system, arguments).await,
        Command::Identity(command) => identity::run(system, command, is_verbose).await,
        Command::Role(command) => role::run(system, command, is_verbose).await,
        Command::Local(command) => local::run(system, command, is_verbose).await,
        Command::Completions { shell } => command::completions::run(shell),
        Command::Man { command, dir } => command::manual::run(&command, dir.as_deref()),
        Command::Version => output::result(&arguments::definition().render_version()),
    }
}

/// Whether a command gets tokens or connects with the settings of the environment.
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
        | Command::Identity(_)
        | Command::Role(_) => true,
        Command::Quickstart(_)
        | Command::Gateway(_)
        | Command::Local(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Version => false,
    }
}

fn log_format(system: &System, command: &Command) -> LogFormat {
    match command {
        Command::Proxy(arguments) => Configuration::log_format(system, &arguments.sources()),
        Command::Gateway(arguments) => GatewayConfiguration::log_format(system, &arguments.sources()),
        _ => LogFormat::Text,
    }
}

/// # Errors
///
/// An invalid filter in `PGENTRA_LOG`.
fn log(system: &System, verbose: u8, (format, is_proxy): (LogFormat, bool)) -> Outcome {
    let default = match verbose {
        0 => "warn",
        1 => {
            "pgentra=info,pgentra_identity=info,pgentra_connect=info,pgentra_roles=info,pgentra_azure=info,pgentra_session=info,pgentra_proxy=info,pgentra_proxy_config=info,pgentra_settings=info,pgentra_observe=info,pgentra_gateway=info,pgentra_gateway_config=info,pgentra_local=info,warn"
        }
        _ => {
            "pgentra=debug,pgentra_identity=debug,pgentra_connect=debug,pgentra_roles=debug,pgentra_azure=debug,pgentra_system=debug,pgentra_session=debug,pgentra_proxy=debug,pgentra_proxy_config=debug,pgentra_settings=debug,pgentra_observe=debug,pgentra_gateway=debug,pgentra_gateway_config=debug,pgentra_emulator=debug,pgentra_localdb=debug,pgentra_local=debug,info"
        }
    };
    let filter = match system.env().get("PGENTRA_LOG") {
        Some(filter) => EnvFilter::try_new(&filter).map_err(|error| {
            Problem::new(Blame::Usage, format!("PGENTRA_LOG cannot be `{filter}`: {error}")).hint(
                "it takes a level, or a filter such as pgentra_identity=debug,warn; levels are off, error, warn, info, debug and trace",
            )
        })?,
        None => EnvFilter::new(default),
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
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colour = output::has_colour(&std::io::stderr());
            subscriber.compact().with_ansi(colour).fmt_fields(output::log_fields()).init();
        }
        LogFormat::Json => subscriber.json().flatten_event(true).with_ansi(false).init(),
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
