//! `pgentra local`: a local Azure whose PostgreSQL checks tokens.

pub(crate) mod arguments;
pub(crate) mod command_line;
mod failure;
mod fault;
mod member;
mod open;
#[cfg(target_os = "linux")]
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod stale;
mod status;
pub(crate) mod up;

use std::collections::{BTreeMap, BTreeSet};

use pgentra_local::{
    Host, JAVA_VARIABLE, METADATA_VARIABLE, NAME_VARIABLE, Status, VARIABLES, control, folder_of,
    keep_java_options, own_java_options, unproxied,
};
use pgentra_system::System;

use crate::blame::Blame;
use crate::options::{Format, Output};
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress;
use crate::time::{date, unix};
use arguments::{
    DEFAULT_NAME, Local, LocalClock, LocalEnv, LocalName, LocalSnapshot, LocalStatus, local_name,
};
use command_line::restart;
use failure::none_runs;
use shell::Shell;

/// Runs one of the sub-commands. Without a name, it uses the local cloud of this shell's
/// environment. A list has what fits on the terminal, unless `is_verbose`.
pub(crate) async fn run(system: &System, mut command: Local, is_verbose: bool) -> Outcome {
    let name = match &mut command {
        Local::Up(arguments) => &mut arguments.name,
        Local::List(output) => return list(system, *output, is_verbose).await,
        Local::Down(name) => name,
        Local::Status(arguments) => &mut arguments.name,
        Local::Open(arguments) => &mut arguments.name,
        Local::Env(arguments) => &mut arguments.name,
        Local::Clock(arguments) => &mut arguments.name,
        Local::Snapshot(arguments) => &mut arguments.name,
        Local::Fault(command) => command.name_mut(),
        Local::Identity(command) => command.name_mut(),
        Local::User(command) => command.name_mut(),
        Local::Group(command) => command.name_mut(),
        #[cfg(target_os = "linux")]
        Local::Run(arguments) => return Err(run::run(system, arguments)),
    };
    if name.name.is_empty() {
        let here = system.env().get(NAME_VARIABLE).filter(|name| local_name(name).is_ok());
        name.name = here.unwrap_or_else(|| DEFAULT_NAME.to_owned());
    }
    match command {
        Local::Up(arguments) => up::run(system, arguments).await,
        Local::List(output) => list(system, output, is_verbose).await,
        Local::Down(name) => down(system, &name).await,
        Local::Status(arguments) => status(system, &arguments).await,
        Local::Open(arguments) => open::run(system, &running(system, &arguments.name).await?, &arguments),
        Local::Env(arguments) => env(system, &arguments).await,
        Local::Clock(arguments) => clock(system, &arguments).await,
        Local::Snapshot(arguments) => snapshot(system, &arguments).await,
        Local::Fault(command) => fault::run(system, &command).await,
        Local::Identity(command) => member::identity(system, command).await,
        Local::User(command) => member::user(system, command).await,
        Local::Group(command) => member::group(system, command).await,
        #[cfg(target_os = "linux")]
        Local::Run(arguments) => Err(run::run(system, &arguments)),
    }
}

/// The names of the local clouds that run, for a shell that completes one. Must not be called on a
/// runtime.
pub(crate) fn running_names() -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let running = runtime.map(|runtime| runtime.block_on(control::list(System::real().env())));
    running.unwrap_or_default().into_iter().map(|status| status.name).collect()
}

async fn down(system: &System, name: &LocalName) -> Outcome {
    let folder = folder_of(system.env(), &name.name);
    let stopped = progress::waiting("stopping the local cloud", control::down(&folder)).await?;
    if let Some(state) = stopped {
        output::say(&format!("local cloud `{}` stopped and removed", name.name));
        if let Some(file) = state {
            output::say(&format!("its state is in {}", file.display()));
        }
        output::say("in a shell that was set up for it: eval \"$(pgentra local env --unset)\"");
    } else {
        output::say(&format!("no local cloud `{}` runs; nothing to do", name.name));
    }
    Ok(())
}

async fn list(system: &System, output: Output, is_verbose: bool) -> Outcome {
    let clouds = control::list(system.env()).await;
    match output.output {
        Format::Text if clouds.is_empty() => {
            output::say("no local cloud runs; start one: pgentra local up --detach");
            Ok(())
        }
        Format::Text => {
            let width = output::result_width().filter(|_| !is_verbose);
            output::result(status::table(&clouds, unix(system.clock().now()), width))
        }
        Format::Json => output::json(&clouds.iter().map(status::Row::of).collect::<Vec<_>>()),
    }
}

async fn status(system: &System, arguments: &LocalStatus) -> Outcome {
    let description = running(system, &arguments.name).await?;
    match arguments.output.output {
        Format::Text => output::result(status::text(&description)),
        Format::Json => output::json(&description),
    }
}

/// `eval` of an empty output succeeds and would not change the shell; this prints a failing command
/// instead.
async fn env(system: &System, arguments: &LocalEnv) -> Outcome {
    let shell = arguments.shell.unwrap_or_else(|| Shell::of(system.env()));
    let printed = printed_env(system, arguments, shell).await;
    let is_text = arguments.output.output == Format::Text;
    match printed {
        Ok(text) => output::exact(&text),
        Err(problem) => {
            if is_text && !output::is_terminal() {
                output::exact(shell.failure())?;
            }
            Err(problem)
        }
    }
}

async fn printed_env(system: &System, arguments: &LocalEnv, shell: Shell) -> Outcome<String> {
    if arguments.unset {
        return match shell.unset(NAME_VARIABLE).is_empty() {
            true => Err(Problem::new(Blame::Usage, "a file of variables has none to unset")
                .hint("--unset goes with --shell sh, fish or powershell")),
            false => {
                let java = match own_java_options(system.env()) {
                    Some(own) => shell.set(JAVA_VARIABLE, &own)?,
                    None => shell.unset(JAVA_VARIABLE),
                };
                let unset: String = VARIABLES.iter().map(|name| shell.unset(name)).collect();
                Ok(format!("{java}{unset}"))
            }
        };
    }
    let description = running(system, &arguments.name).await?;
    let Some(mut variables) = description.environments.get(arguments.host.name()).cloned() else {
        if arguments.host == Host::AzureArc {
            let again = restart(&description, " --arc");
            return Err(Problem::new(Blame::Usage, "the running local cloud is no Azure Arc server")
                .hint(format!("stop it and start it again as root: {again}")));
        }
        return Err(Problem::new(Blame::Ours, "the running local cloud is of another version of pgentra")
            .hint(format!("stop it and start it again: {}", restart(&description, ""))));
    };
    variables.extend(unproxied(system.env(), &description.environments));
    keep_java_options(system.env(), &mut variables);
    if arguments.output.output == Format::Json {
        let text = serde_json::to_string_pretty(&variables);
        return text
            .map(|text| format!("{text}\n"))
            .map_err(|error| Problem::ours("cannot render JSON", error));
    }
    // A shell that was set up for another host must not keep that host's variables.
    let others: BTreeSet<_> = description.environments.values().flat_map(BTreeMap::keys).collect();
    // A cloud with --link-local does not set this variable, but an earlier one may have.
    let metadata = METADATA_VARIABLE.to_owned();
    let others: BTreeSet<_> = others.into_iter().chain([&metadata]).collect();
    let unset = others.into_iter().filter(|name| !variables.contains_key(*name));
    let unset: String = unset.map(|name| shell.unset(name)).collect();
    Ok(format!("{unset}{}", shell.set_all(&variables)?))
}

async fn clock(system: &System, arguments: &LocalClock) -> Outcome {
    let name = &arguments.name.name;
    let folder = folder_of(system.env(), name);
    let by = arguments.advance.unwrap_or_default();
    let now = control::advance(&folder, by).await?.ok_or_else(|| none_runs(name))?;
    match arguments.output.output {
        Format::Text => output::result(&format!("{}\n", date(now))),
        Format::Json => output::json(&serde_json::json!({ "now": now })),
    }
}

async fn snapshot(system: &System, arguments: &LocalSnapshot) -> Outcome {
    let name = &arguments.name.name;
    let file =
        std::path::absolute(&arguments.file).map_err(|error| Problem::ours("cannot name the file", error))?;
    let folder = folder_of(system.env(), name);
    let saved = control::snapshot(&folder, &file, arguments.replace);
    let saved = progress::waiting("saving the local cloud", saved).await?;
    let size = saved.ok_or_else(|| none_runs(name))?.div_ceil(1 << 20);
    output::say(&format!("the state of local cloud `{name}` is in {} ({size} MiB)", file.display()));
    Ok(())
}

async fn running(system: &System, name: &LocalName) -> Outcome<Status> {
    let found = control::status(&folder_of(system.env(), &name.name)).await?;
    found.ok_or_else(|| none_runs(&name.name))
}
