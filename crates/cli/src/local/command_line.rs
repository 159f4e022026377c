//! The commands that messages about a local cloud tell the user to run.

use pgentra_connect::quote;
use pgentra_local::Status;

/// The command of `pgentra local` that means the cloud of this name.
pub(crate) fn command(command: &str, name: &str) -> String {
    match name {
        "default" => format!("pgentra local {command}"),
        name => format!("pgentra local {command} --name {}", quote::shell_word(name)),
    }
}

/// What to type to use a cloud that runs.
pub(crate) fn entry(name: &str) -> String {
    format!("eval \"$({})\" && pgentra query -c 'SELECT current_user'", command("env", name))
}

/// What stops a cloud and starts it again as it is, with `more` of what `pgentra local up` takes.
pub(super) fn restart(description: &Status, more: &str) -> String {
    let name = &description.name;
    let flavour = match description.flavour.as_str() {
        "flexible" => String::new(),
        flavour => format!(" --flavour {flavour}"),
    };
    let state = description.state.as_ref();
    let state = state
        .map(|file| format!(" --state {}", quote::shell_word(&file.to_string_lossy())))
        .unwrap_or_default();
    format!("{} && {}{flavour}{state}{more} --detach", command("down", name), command("up", name))
}
