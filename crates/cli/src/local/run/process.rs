//! The further processes of `pgentra local run`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use pgentra_system::Env;

use crate::output;
use crate::problem::{Outcome, Problem};

/// This program as another process, in a process group of its own: Ctrl-C and Ctrl-Z at the terminal
/// are for the program alone.
pub(super) fn this_program(env: &Env, command: &str) -> Outcome<Command> {
    let own = std::env::current_exe()
        .map_err(|error| Problem::ours("cannot find this program's own file", error))?;
    let mut process = Command::new(own);
    process.arg(command).stdin(Stdio::null()).process_group(0);
    match output::log_flag() {
        Some(flag) => {
            process.arg(flag);
        }
        // It writes to the program's terminal, so it shows no more than the person asked for.
        None if !env.has("PGENTRA_LOG") => {
            process.env("PGENTRA_LOG", "error");
        }
        None => {}
    }
    Ok(process)
}
