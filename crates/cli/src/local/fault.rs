//! `pgentra local fault`.

use pgentra_local::control::{self, FaultChange};
use pgentra_local::faults::{ActiveRow, FaultList};
use pgentra_local::{FailureKind, folder_of};
use pgentra_system::System;

use super::arguments::FaultCommand;
use super::command_line;
use super::failure::none_runs;
use crate::blame::Blame;
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::table::{Need, list};
use crate::text::Text;

/// Changes the faults of the local cloud, and shows those that are on then.
pub(super) async fn run(system: &System, command: &FaultCommand) -> Outcome {
    let name = &command.name().name;
    let (change, format) = match command {
        FaultCommand::List(arguments) => (FaultChange::None, arguments.output.output),
        FaultCommand::Set(arguments) => {
            let fault = arguments.fault;
            let at = arguments.at.unwrap_or_else(|| fault.usual_endpoint());
            if let Err(refused) = fault.check(at, arguments.times) {
                let elsewhere = command_line::command(&format!("fault set {}", fault.name), name);
                return Err(Problem::new(Blame::Usage, refused).hint(elsewhere));
            }
            (FaultChange::Set { fault, at, times: arguments.times }, arguments.output.output)
        }
        FaultCommand::Clear(arguments) => {
            (FaultChange::Clear { fault: arguments.fault, at: arguments.at }, arguments.output.output)
        }
    };
    let changed = control::change_faults(&folder_of(system.env(), name), change).await;
    let changed = changed.map_err(|failure| match failure.kind() {
        FailureKind::Usage => {
            Problem::from(failure).hint(format!("see: {}", command_line::command("fault list -o json", name)))
        }
        FailureKind::Machine => failure.into(),
    })?;
    let faults = changed.ok_or_else(|| none_runs(name))?;
    match format {
        Format::Json => output::json(&faults),
        Format::Text if faults.active.is_empty() => {
            output::say("no fault is on");
            Ok(())
        }
        Format::Text => output::result(table(&faults, output::result_width())),
    }
}

fn table(faults: &FaultList, width: Option<usize>) -> Text {
    let columns = [
        ("fault", Need::Always),
        ("endpoint", Need::Always),
        ("requests left", Need::Always),
        ("what", Need::IfItFits),
    ];
    let row = |it: &ActiveRow| {
        [
            it.fault.clone().unwrap_or_else(|| "-".to_owned()),
            it.endpoint.clone().unwrap_or_else(|| "any".to_owned()),
            it.left.map_or_else(|| "all".to_owned(), |left| left.to_string()),
            it.title.clone(),
        ]
        .map(Some)
        .to_vec()
    };
    list(&columns, &faults.active.iter().map(row).collect::<Vec<_>>(), width)
}
