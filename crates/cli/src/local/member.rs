//! `pgentra local identity`, `user` and `group`.

use pgentra_local::control::{self, MemberChange};
use pgentra_local::principals::{MemberKind, MemberName, MembershipChange, TenantMember};
use pgentra_local::{Failure, FailureKind, folder_of};
use pgentra_system::System;

use super::arguments::{GroupCommand, GroupMember, IdentityCommand, MemberList, UserCommand};
use super::command_line;
use super::failure::none_runs;
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::table::{Need, list};
use crate::text::Text;

pub(super) async fn identity(system: &System, command: IdentityCommand) -> Outcome {
    let (change, list) = match command {
        IdentityCommand::List(list) => (MemberChange::None, list),
        IdentityCommand::Add(named) => (MemberChange::Add(named.member), named.list),
        IdentityCommand::Remove(named) => (MemberChange::Remove(named.member), named.list),
    };
    run(system, MemberKind::Identity, &change, &list).await
}

pub(super) async fn user(system: &System, command: UserCommand) -> Outcome {
    let (change, list) = match command {
        UserCommand::List(list) => (MemberChange::None, list),
        UserCommand::Add(named) => (MemberChange::Add(named.member), named.list),
        UserCommand::Remove(named) => (MemberChange::Remove(named.member), named.list),
    };
    run(system, MemberKind::User, &change, &list).await
}

pub(super) async fn group(system: &System, command: GroupCommand) -> Outcome {
    let (change, list) = match command {
        GroupCommand::List(list) => (MemberChange::None, list),
        GroupCommand::Add(named) => (MemberChange::Add(named.member), named.list),
        GroupCommand::Remove(named) => (MemberChange::Remove(named.member), named.list),
        GroupCommand::Members(named) => {
            return membership(system, &named.member, &MembershipChange::None, &named.list).await;
        }
        GroupCommand::AddMember(GroupMember { group, member, list }) => {
            return membership(system, &group, &MembershipChange::Add(member), &list).await;
        }
        GroupCommand::RemoveMember(GroupMember { group, member, list }) => {
            return membership(system, &group, &MembershipChange::Remove(member), &list).await;
        }
    };
    run(system, MemberKind::Group, &change, &list).await
}

/// Changes the principals of this kind, and shows those that there are then.
async fn run(system: &System, kind: MemberKind, change: &MemberChange, arguments: &MemberList) -> Outcome {
    let name = &arguments.name.name;
    let members = control::change_members(&folder_of(system.env(), name), kind, change).await;
    show(members, kind, arguments, &format!("{kind} list"))
}

/// Changes the members of a group, and shows those that it has then.
async fn membership(
    system: &System,
    group: &MemberName,
    change: &MembershipChange,
    arguments: &MemberList,
) -> Outcome {
    let name = &arguments.name.name;
    let members = control::change_membership(&folder_of(system.env(), name), group, change).await;
    show(members, MemberKind::Group, arguments, "group list")
}

/// Shows principals, or the command that shows which there are.
fn show(
    members: Result<Option<Vec<TenantMember>>, Failure>,
    kind: MemberKind,
    arguments: &MemberList,
    see: &str,
) -> Outcome {
    let name = &arguments.name.name;
    let members = members.map_err(|failure| match failure.kind() {
        FailureKind::Usage => {
            Problem::from(failure).hint(format!("see: {}", command_line::command(see, name)))
        }
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
