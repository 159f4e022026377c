//! `pgentra local identity`, `user` and `group`.

use pgentra_local::control::{self, MemberChange};
use pgentra_local::principals::{MemberKind, TenantMember};
use pgentra_local::{FailureKind, folder_of};
use pgentra_system::System;

use super::arguments::MemberCommand;
use super::command_line;
use super::failure::none_runs;
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::table::{Need, list};
use crate::text::Text;

/// Changes the principals of this kind, and shows those that there are then.
pub(super) async fn run(system: &System, kind: MemberKind, command: MemberCommand) -> Outcome {
    let (change, arguments) = match command {
        MemberCommand::List(arguments) => (MemberChange::None, arguments),
        MemberCommand::Add(arguments) => (MemberChange::Add(arguments.member), arguments.list),
        MemberCommand::Remove(arguments) => (MemberChange::Remove(arguments.member), arguments.list),
    };
    let name = &arguments.name.name;
    let members = control::change_members(&folder_of(system.env(), name), kind, &change).await;
    let members = members.map_err(|failure| match failure.kind() {
        FailureKind::Usage => Problem::from(failure)
            .hint(format!("see: {}", command_line::command(&format!("{kind} list"), name))),
        FailureKind::Machine => failure.into(),
    })?;
    let members = members.ok_or_else(|| none_runs(name))?;
    match arguments.output.output {
        Format::Json => output::json(&members),
        Format::Text => output::result(table(&members, kind, output::result_width())),
    }
}

fn table(members: &[TenantMember], kind: MemberKind, width: Option<usize>) -> Text {
    let is_identity = kind == MemberKind::Identity;
    let columns = [("name", Need::Always), ("object id", Need::Always), ("client id", Need::IfItFits)];
    let columns = if is_identity { &columns[..] } else { &columns[..2] };
    let row = |it: &TenantMember| {
        let ids = [Some(it.object_id.to_string()), it.client_id.map(|id| id.to_string())];
        let ids = ids.into_iter().take(columns.len() - 1);
        [Some(it.name.clone())].into_iter().chain(ids).collect()
    };
    list(columns, &members.iter().map(row).collect::<Vec<_>>(), width)
}
