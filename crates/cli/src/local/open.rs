//! `pgentra local open`.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use pgentra_local::Status;
use pgentra_system::{Env, System};

use super::arguments::LocalOpen;
use super::command_line::restart;
use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};

/// The program that opens an address in the browser of the desktop.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Prints the address of the page, and opens it where a person sits in front of a desktop.
pub(super) fn run(system: &System, status: &Status, arguments: &LocalOpen) -> Outcome {
    if status.page.is_empty() {
        return Err(Problem::new(Blame::Ours, "the running local cloud is of another version of pgentra")
            .hint(format!("stop it and start it again: {}", restart(status, ""))));
    }
    output::result(&format!("{}\n", status.page))?;
    if arguments.print || !output::is_terminal() || !has_desktop(system.env()) {
        return Ok(());
    }
    // It may run as long as the browser does, and longer than the terminal: SIGHUP does not reach
    // a group of its own.
    let opened = std::process::Command::new(OPENER)
        .arg(&status.page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    if let Err(error) = opened {
        output::say(&format!("{OPENER} cannot be run ({error}): open the address in a browser"));
    }
    Ok(())
}

/// Whether there is a display. On macOS there is, unless the shell is at another machine.
fn has_desktop(env: &Env) -> bool {
    let is_set = |name: &str| env.get(name).is_some_and(|value| !value.is_empty());
    if cfg!(target_os = "macos") {
        return !is_set("SSH_CONNECTION");
    }
    is_set("WAYLAND_DISPLAY") || is_set("DISPLAY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(target_os = "macos"))]
    fn a_desktop_has_a_display() {
        for (variables, is_there) in [
            (&[][..], false),
            (&[("DISPLAY", "")], false),
            (&[("DISPLAY", ":0")], true),
            (&[("WAYLAND_DISPLAY", "wayland-0")], true),
        ] {
            assert_eq!(has_desktop(&Env::from_map(variables.iter().copied())), is_there, "{variables:?}");
        }
    }
}
