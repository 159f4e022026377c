//! `pgentra local`: a local Azure whose PostgreSQL checks tokens.

mod administrators;
pub(crate) mod cloud;
pub(crate) mod control;
mod description;
pub(crate) mod environment;
pub(crate) mod folder;
mod keys;
pub(crate) mod up;

use std::collections::{BTreeMap, BTreeSet};

use pgentra_identity::World;

use crate::arguments::{Format, Host, Local, LocalClock, LocalEnv, LocalName, LocalStatus};
use crate::command::whoami::date;
use crate::output;
use crate::problem::{Blame, Outcome, Problem};
use crate::shell;
use description::Description;

/// Runs one of the sub-commands.
pub(crate) async fn run(world: &World, command: Local) -> Outcome {
    match command {
        Local::Up(arguments) => up::run(world, arguments).await,
        Local::Down(name) => down(world, &name).await,
        Local::Status(arguments) => status(world, &arguments).await,
        Local::Env(arguments) => env(world, &arguments).await,
        Local::Clock(arguments) => clock(world, &arguments).await,
    }
}

async fn down(world: &World, name: &LocalName) -> Outcome {
    if control::down(&folder::of(world.env(), &name.name)).await? {
        output::say(&format!("local cloud `{}` stopped; nothing is left of it", name.name));
        Ok(())
    } else {
        Err(none_runs(&name.name))
    }
}

async fn status(world: &World, arguments: &LocalStatus) -> Outcome {
    let description = running(world, &arguments.name).await?;
    match arguments.output.output {
        Format::Text => output::result(&description.text()),
        Format::Json => output::json(&description),
    }
}

async fn env(world: &World, arguments: &LocalEnv) -> Outcome {
    let description = running(world, &arguments.name).await?;
    let Some(variables) = description.environments.get(&arguments.host.name()) else {
        if arguments.host == Host::AzureArc {
            let again = restart(&description, " --arc");
            return Err(Problem::new(Blame::Usage, "the running local cloud is no Azure Arc server")
                .hint(format!("stop it and start it again as root: {again}")));
        }
        return Err(Problem::new(Blame::Ours, "the running local cloud is of another version of pgentra")
            .hint(format!("stop it and start it again: {}", restart(&description, ""))));
    };
    match arguments.output.output {
        Format::Json => output::json(variables),
        Format::Text => {
            // A shell that was another host before must not be two at once.
            let others: BTreeSet<_> = description.environments.values().flat_map(BTreeMap::keys).collect();
            let unset = others.into_iter().filter(|name| !variables.contains_key(*name));
            let unset = unset.map(|name| format!("unset {name}\n"));
            let export = variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
            output::result(&unset.chain(export).collect::<String>())
        }
    }
}

async fn clock(world: &World, arguments: &LocalClock) -> Outcome {
    let name = &arguments.name.name;
    let folder = folder::of(world.env(), name);
    let by = arguments.advance.unwrap_or_default();
    let now = control::advance(&folder, by).await?.ok_or_else(|| none_runs(name))?;
    match arguments.output.output {
        Format::Text => output::result(&format!("{}\n", date(now))),
        Format::Json => output::json(&serde_json::json!({ "now": now })),
    }
}

async fn running(world: &World, name: &LocalName) -> Outcome<Description> {
    let found = control::status(&folder::of(world.env(), &name.name)).await?;
    found.ok_or_else(|| none_runs(&name.name))
}

fn none_runs(name: &str) -> Problem {
    Problem::new(Blame::Usage, format!("no local cloud `{name}` runs"))
        .hint(format!("start one: {} --detach", command("up", name)))
}

/// The command of `pgentra local` that means the cloud of this name.
fn command(command: &str, name: &str) -> String {
    match name {
        "default" => format!("pgentra local {command}"),
        name => format!("pgentra local {command} --name {}", shell::word(name)),
    }
}

/// What to type to use a cloud that runs.
fn entry(name: &str) -> String {
    format!("eval \"$({})\" && pgentra query -c 'SELECT current_user'", command("env", name))
}

/// What stops a cloud and starts it again as it is, with `more` of what `pgentra local up` takes.
fn restart(description: &Description, more: &str) -> String {
    let name = &description.name;
    let flavour = match description.flavour.as_str() {
        "flexible" => String::new(),
        flavour => format!(" --flavour {flavour}"),
    };
    format!("{} && {}{flavour}{more} --detach", command("down", name), command("up", name))
}

/// A word for a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_value_as_it_is() {
        let value = "a'b $HOME `id` \"c\" \\";
        let shell = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quoted(value))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), value);
    }
}
