//! `pgentra local`: a local Azure whose PostgreSQL checks tokens.

mod administrators;
pub(crate) mod cloud;
pub(crate) mod control;
mod description;
pub(crate) mod environment;
pub(crate) mod folder;
mod keys;
mod pod;
pub(crate) mod up;

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote::shell_word;
use pgentra_identity::World;

use crate::arguments::{Format, Host, Local, LocalClock, LocalEnv, LocalName, LocalStatus};
use crate::command::whoami::date;
use crate::output;
use crate::problem::{Blame, Outcome, Problem};
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
        Format::Text => output::result(description.text()),
        Format::Json => output::json(&description),
    }
}

async fn env(world: &World, arguments: &LocalEnv) -> Outcome {
    let description = running(world, &arguments.name).await?;
    let Some(mut variables) = description.environments.get(&arguments.host.name()).cloned() else {
        if arguments.host == Host::AzureArc {
            let again = "stop it and start it again as root: pgentra local down && pgentra local up --arc";
            return Err(
                Problem::new(Blame::Usage, "the running local cloud is no Azure Arc server").hint(again)
            );
        }
        return Err(Problem::new(Blame::Ours, "the running local cloud is of another version of pgentra")
            .hint("stop it and start it again: pgentra local down && pgentra local up"));
    };
    variables.extend(environment::unproxied(world.env(), &description.environments));
    match arguments.output.output {
        Format::Json => output::json(&variables),
        Format::Text => {
            // A shell that was another host before must not be two at once.
            let others: BTreeSet<_> = description.environments.values().flat_map(BTreeMap::keys).collect();
            // No host of a cloud with --link-local sets it, and another cloud's may stand there.
            let metadata = environment::METADATA.to_owned();
            let others: BTreeSet<_> = others.into_iter().chain([&metadata]).collect();
            let unset = others.into_iter().filter(|name| !variables.contains_key(*name));
            let unset = unset.map(|name| format!("unset {name}\n"));
            let export =
                variables.iter().map(|(name, value)| format!("export {name}={}\n", shell_word(value)));
            output::exact(&unset.chain(export).collect::<String>())
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
    let again = if name == "default" { String::new() } else { format!(" --name {name}") };
    Problem::new(Blame::Usage, format!("no local cloud `{name}` runs"))
        .hint(format!("start one: pgentra local up{again} --detach"))
}
