//! The process outside the namespaces: it serves the sockets that were opened inside, and ends with
//! the program.

use std::pin::pin;
use std::process::Stdio;

use pgentra_local::inside::Relay;
use pgentra_local::{control, folder_of};
use pgentra_system::System;

use super::arguments::LocalRelay;
use super::process::this_program;
use super::report::RelayReport;
use crate::launch::end_of;
use crate::local::failure::none_runs;
use crate::output;
use crate::problem::{Outcome, Problem};

/// The hidden command of this process.
pub(super) const COMMAND: &str = "local-relay";

/// Serves the connections of the program until it ends. The first process only starts a second one
/// and ends, so that the relay is no child of the program: a program that waits for all of its
/// children would wait for ever.
pub(crate) async fn serve(system: &System, arguments: LocalRelay) -> Outcome {
    if !arguments.detached {
        return this_program(system.env(), COMMAND)?
            .arg("--detached")
            .args(arguments.words())
            .stdout(Stdio::inherit())
            .spawn()
            .map(drop)
            .map_err(|error| Problem::ours("cannot start the relay", error));
    }
    let mut ended = pin!(end_of(arguments.program));
    let opened = tokio::select! {
        () = &mut ended => return Ok(()),
        opened = open(system, &arguments) => opened,
    };
    let relay = match opened {
        Ok(relay) => relay,
        Err(problem) => {
            // The program's process shows it.
            say(&RelayReport::failed(&problem))?;
            return Err(problem.told());
        }
    };
    say(&RelayReport::Ready { plan: relay.plan().clone(), socket: relay.socket().to_owned() })?;
    Ok(relay.serve(ended).await?)
}

async fn open(system: &System, arguments: &LocalRelay) -> Outcome<Relay> {
    let name = &arguments.name.name;
    let status = control::status(&folder_of(system.env(), name)).await?;
    let status = status.ok_or_else(|| none_runs(name))?;
    let published = (&arguments.publish[..], arguments.program);
    Ok(Relay::open(&status, arguments.host, &arguments.reach, published)?)
}

fn say(report: &RelayReport) -> Outcome {
    let line = serde_json::to_string(report).map_err(|error| Problem::ours("cannot render JSON", error))?;
    output::exact(&format!("{line}\n"))
}
