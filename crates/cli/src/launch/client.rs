//! Starts the listener's process, and learns from it how the program reaches the listener.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use pgentra_connect::Target;
use pgentra_system::{Env, System};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use zeroize::Zeroizing;

use super::arguments::Access;
use super::reached::Reached;
use super::words;
use crate::blame::Blame;
use crate::catalogue::Finding;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// The hidden command of the listener's process.
pub(super) const COMMAND: &str = "exec-listener";

/// The longest answer in bytes: a failure with all of its causes.
const ANSWER: u64 = 64 * 1024;

/// What the listener's process writes, a line of JSON, when clients can connect or never will.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ListenerReport {
    /// A listener, as [`Reached`].
    Ready { host: String, port: u16, password: Option<String> },
    /// Why there is no listener.
    Failed { exit_code: u8, finding: Option<String>, error: Vec<String>, hint: Option<String> },
}

impl ListenerReport {
    pub(super) fn of(reached: Reached) -> Self {
        let Reached { host, port, password } = reached;
        Self::Ready { host, port, password: password.map(|password| password.expose_secret().to_owned()) }
    }

    pub(super) fn failed(problem: &Problem) -> Self {
        Self::Failed {
            exit_code: problem.blame() as u8,
            finding: problem.finding().map(|finding| finding.id().to_owned()),
            error: std::iter::once(problem.error_text()).chain(problem.causes()).collect(),
            hint: problem.hint_text().map(str::to_owned),
        }
    }
}

/// Replaces this process by the program. With a `target`, the program reaches that through a
/// listener, which a process of its own serves. Returns only on failure: why the program does not
/// run.
///
/// # Errors
/// Every failure of the listener's process.
pub(super) async fn run(
    system: &System,
    (access, target): (&Access, Option<Target>),
    mut command: Command,
) -> Outcome<std::io::Error> {
    if let Some(target) = target {
        let reached = waiting("waiting for a token", start(system.env(), access)).await?;
        reached.apply(&target, &mut command);
    }
    Ok(command.exec())
}

/// Starts the listener, and returns when it accepts clients and has a token.
///
/// # Errors
/// Every failure of the listener's process, as it reports it.
async fn start(env: &Env, access: &Access) -> Outcome<Reached> {
    let program = std::process::id().to_string();
    let mut child = command(env, &["--program", &program], access)?
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Problem::ours("cannot start the listener", error))?;
    let mut line = Zeroizing::new(String::new());
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout.take(ANSWER))
            .read_line(&mut line)
            .await
            .map_err(|error| Problem::ours("cannot hear from the listener", error))?;
    }
    // This process has ended already: it started the listener, which is no child of the program.
    child.wait().await.map_err(|error| Problem::ours("cannot wait for the listener", error))?;
    let answer = serde_json::from_str(&line).map_err(|_| {
        Problem::new(Blame::Ours, "the listener ended before it was ready")
            .hint("-vv shows more; --direct does without a listener")
    })?;
    match answer {
        ListenerReport::Ready { host, port, password } => {
            Ok(Reached { host, port, password: password.map(Into::into) })
        }
        ListenerReport::Failed { exit_code, finding, error, hint } => {
            let finding = finding.and_then(|id| Finding::named(&id));
            Err(Problem::restored(Blame::of_exit_code(exit_code), finding, error, hint))
        }
    }
}

/// This program as the listener's process, in a process group of its own: Ctrl-C and Ctrl-Z at the
/// terminal are for the program alone.
pub(super) fn command(env: &Env, flags: &[&str], access: &Access) -> Outcome<tokio::process::Command> {
    let own = std::env::current_exe()
        .map_err(|error| Problem::ours("cannot find this program's own file", error))?;
    let mut command = tokio::process::Command::new(own);
    command.arg(COMMAND).args(flags).stdin(Stdio::null()).process_group(0);
    // It writes to the program's terminal, so it shows no more than the person asked for. Clients
    // get the reason of each refusal in the refusal itself.
    match output::log_flag() {
        Some(flag) => {
            command.arg(flag);
        }
        None if !env.has("PGENTRA_LOG") => {
            command.env("PGENTRA_LOG", "error");
        }
        None => {}
    }
    command.args(words::of(access));
    Ok(command)
}
