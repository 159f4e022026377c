//! `pgentra local up`.

use std::path::Path;
use std::process::Stdio;

#[cfg(target_os = "linux")]
use pgentra_connect::quote;
use pgentra_local::control::{self, Control};
use pgentra_local::{LocalCloud, Status, folder_of};
use pgentra_system::System;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStderr;
use tokio_util::sync::CancellationToken;

use super::arguments::LocalUp;
use super::command_line::{self, entry};
use super::status;
use crate::blame::Blame;
use crate::options::Format;
use crate::output;
use crate::platform::stop_signal;
use crate::problem::{Outcome, Problem};
use crate::progress::{Progress, STEP};

/// Starts the local cloud and runs it until Ctrl-C, SIGTERM or `pgentra local down`.
pub(crate) async fn run(system: &System, arguments: LocalUp) -> Outcome {
    #[cfg(target_os = "linux")]
    check_files(arguments.containers.azure_files.as_deref())?;
    let folder = folder_of(system.env(), &arguments.name.name);
    check_free(&folder, &arguments.name.name, "; or give this one another name with --name").await?;
    if arguments.detach {
        return detach(&folder, &arguments).await;
    }
    stay(system, &folder, &arguments).await
}

/// Refuses a folder for the files of containers that is not there.
#[cfg(target_os = "linux")]
fn check_files(folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder.filter(|folder| !folder.is_dir()) else { return Ok(()) };
    let message = format!("--azure-files: {} is no folder", folder.display());
    let made = quote::shell_word(&folder.to_string_lossy());
    Err(Problem::new(Blame::Usage, message).hint(format!("make it: mkdir -p {made}")))
}

/// Refuses a second cloud of this name; `way_out` ends the hint.
pub(crate) async fn check_free(folder: &Path, name: &str, way_out: &str) -> Outcome {
    if control::status(folder).await?.is_none() {
        return Ok(());
    }
    let (used, stopped) = (entry(name), command_line::command("down", name));
    Err(Problem::new(Blame::Usage, format!("a local cloud `{name}` runs already"))
        .hint(format!("use it: {used}; stop it: {stopped}{way_out}")))
}

async fn stay(system: &System, folder: &Path, arguments: &LocalUp) -> Outcome {
    // From here on Ctrl-C ends any wait, and dropping the future cleans up.
    let stop = stop_signal()?;
    let progress = Progress::new();
    let database = &arguments.database;
    let start = LocalCloud::builder()
        .system(system)
        .name(&arguments.name.name)
        .kept(true)
        .seed(arguments.seed.clone())
        .state(arguments.state.clone())
        .snapshot(arguments.snapshot.clone())
        .flavour(database.flavour)
        .postgres(database.postgres.clone())
        .port(arguments.port)
        .metadata_port(arguments.metadata_port)
        .pgbouncer(arguments.pgbouncer.pgbouncer)
        .pgbouncer_port(arguments.pgbouncer.pgbouncer_port)
        .link_local(arguments.fixed.link_local)
        .arc(arguments.fixed.arc)
        .address(arguments.other_machines.danger_listen_beyond_loopback)
        .host_names(arguments.other_machines.host_name.clone())
        .trusted_cluster(arguments.other_machines.cluster())
        .entra_port(arguments.other_machines.entra_port)
        .authority(arguments.other_machines.authority())
        .progress(|step| progress.show(step))
        .start();
    let started = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        started = start => started,
    };
    let mut cloud = started?;
    progress.show("creating a role for each identity");
    let prepared = prepare(&mut cloud, arguments).await;
    progress.clear();
    if let Err(error) = prepared {
        cloud.stop().await;
        return Err(error.into());
    }
    let description = Status::of(&cloud);
    let control = Control::bind(folder)?;
    match arguments.output.output {
        Format::Text => {
            output::say(status::text(&description));
            let name = &arguments.name.name;
            output::say(&format!("ready; in another terminal: {}", entry(name)));
            output::say(&format!("Ctrl-C or `{}` stops it", command_line::command("down", name)));
        }
        // One line, so that a program can wait for it.
        Format::Json => {
            let line = serde_json::to_string(&description)
                .map_err(|error| Problem::ours("cannot render JSON", error))?;
            output::exact(&format!("{line}\n"))?;
        }
    }
    serve(cloud, control, &description, &stop).await
}

/// What a cloud gets beside its services.
async fn prepare(cloud: &mut LocalCloud, arguments: &LocalUp) -> Result<(), pgentra_local::Error> {
    cloud.create_roles().await?;
    #[cfg(target_os = "linux")]
    if let (Some(address), Some(folder)) =
        (arguments.containers.danger_azure_names, &arguments.containers.azure_files)
    {
        cloud.serve_containers(address, folder).await?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = arguments;
    Ok(())
}

/// Lets a cloud run until it is told to stop, and removes it.
///
/// # Errors
///
/// Its PostgreSQL ended by itself, or its state could not be written.
pub(crate) async fn serve(
    mut cloud: LocalCloud,
    control: Control,
    description: &Status,
    stop: &CancellationToken,
) -> Outcome {
    let (clock, faults, snapshots) = (cloud.clock().clone(), cloud.faults().clone(), cloud.snapshots());
    let ended = tokio::select! {
        control = control.serve(description, &clock, &faults, &snapshots, stop) => Ok(control),
        how = cloud.died() => Err(format!("the PostgreSQL of the local cloud ended by itself ({how})")),
    };
    drop((clock, faults, snapshots));
    let stopped = cloud.stop_and_save().await;
    match ended {
        Ok(mut control) => {
            // The last act: the client that asked for the end waits for it.
            control.ended(&stopped).await;
            Ok(stopped?)
        }
        Err(died) => {
            if let Err(failure) = stopped {
                output::problem(&Problem::from(failure));
            }
            Err(Problem::new(Blame::Ours, died).hint("start it again with -vv"))
        }
    }
}

/// Starts this program as a background process, and returns when that is ready.
async fn detach(folder: &Path, arguments: &LocalUp) -> Outcome {
    let program = std::env::current_exe()
        .map_err(|error| Problem::ours("cannot find this program's own file", error))?;
    let mut command = tokio::process::Command::new(program);
    let database = &arguments.database;
    command
        .args(["local", "up", "-o", "json", "--name", &arguments.name.name])
        .args(database.flavour.iter().flat_map(|flavour| ["--flavour".to_owned(), flavour.to_string()]))
        .args([
            "--port",
            &arguments.port.to_string(),
            "--metadata-port",
            &arguments.metadata_port.to_string(),
        ])
        .args(database.postgres.iter().flat_map(|folder| ["--postgres".as_ref(), folder.as_os_str()]))
        .args(arguments.pgbouncer.words())
        .args(arguments.fixed.link_local.then_some("--link-local"))
        .args(arguments.fixed.arc.then_some("--arc"))
        .args(arguments.other_machines.words())
        .args(arguments.state.iter().flat_map(|file| ["--state".as_ref(), file.as_os_str()]))
        .args(arguments.snapshot.iter().flat_map(|file| ["--snapshot".as_ref(), file.as_os_str()]))
        .args(arguments.seed.iter().flat_map(|seed| ["--seed", seed]))
        .args(output::log_flag())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Forwarded until the cloud is ready; an inherited stderr would keep readers of this
        // terminal waiting for its end.
        .stderr(Stdio::piped())
        // Its own process group: Ctrl-C in this terminal does not reach it.
        .process_group(0);
    #[cfg(target_os = "linux")]
    command.args(arguments.containers.words());
    let mut child = command.spawn().map_err(|error| Problem::ours("cannot start the local cloud", error))?;
    let mut line = String::new();
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        let mut stdout = BufReader::new(stdout);
        let mut stderr = BufReader::new(stderr).lines();
        let progress = Progress::new();
        let heard = tokio::select! {
            heard = stdout.read_line(&mut line) => heard.map(drop),
            // If stderr ends without the line, the process ended before it was ready.
            passed = pass_on(&mut stderr, &progress) => passed,
        };
        if line.is_empty() {
            // The reason is still in the pipe.
            let _ = pass_on(&mut stderr, &progress).await;
        }
        progress.clear();
        heard.map_err(|error| Problem::ours("cannot hear from the local cloud", error))?;
    }
    if line.is_empty() {
        let status =
            child.wait().await.map_err(|error| Problem::ours("cannot wait for the local cloud", error))?;
        return Err(Problem::new(Blame::Ours, format!("the local cloud did not start ({status})"))
            .hint("its own words are above; -vv says more"));
    }
    match arguments.output.output {
        Format::Json => output::exact(&line),
        Format::Text => {
            let found = control::status(folder).await?;
            output::say(found.as_ref().map(status::text).unwrap_or_default());
            let name = &arguments.name.name;
            output::say(&format!("ready; next: {}", entry(name)));
            output::say(&format!("`{}` stops it", command_line::command("down", name)));
            Ok(())
        }
    }
}

/// Shows the messages of the background process: its steps as this process's, everything else
/// unchanged.
async fn pass_on(said: &mut Lines<BufReader<ChildStderr>>, progress: &Progress) -> std::io::Result<()> {
    while let Some(line) = said.next_line().await? {
        match line.strip_prefix(STEP) {
            Some(doing) => progress.show(doing),
            None => progress.say(&line),
        }
    }
    Ok(())
}
