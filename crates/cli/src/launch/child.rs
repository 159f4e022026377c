//! Runs the program as a child of this process, where a process cannot be replaced by another.

use std::io;
use std::process::Command;

use pgentra_connect::Target;
use pgentra_proxy::ShutdownTokens;
use pgentra_system::System;

use super::arguments::Access;
use super::listener;
use crate::platform::{self, stop_signal};
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// Runs the program, and ends this process with the program's exit code. With a `target`, the program
/// reaches that through a listener of this process, which asks for a password that is made for this
/// run. Returns only on failure: why the program does not run.
///
/// # Errors
/// There is no token, or no listener.
pub(super) async fn run(
    system: &System,
    (access, target): (&Access, Option<Target>),
    mut command: Command,
) -> Outcome<io::Error> {
    if let Some(target) = target {
        let (open, reached) =
            waiting("waiting for a token", listener::open(system, access, listener::tcp)).await?;
        reached.apply(&target, &mut command);
        tokio::spawn(open.proxy.serve(open.listener, ShutdownTokens::default()));
    }
    // Ctrl-C and Ctrl-Break reach the program too, which decides what they mean.
    let _held = stop_signal()?;
    let mut child = match tokio::process::Command::from(command).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(error),
    };
    let status = child.wait().await.map_err(|error| Problem::ours("cannot wait for the program", error))?;
    platform::exit(status.code().unwrap_or(1))
}
