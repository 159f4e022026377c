//! `pgentra grant`: the administrator's part of the article in one command. Identity on the host,
//! role in the database, and a check that it works. `pgentra revoke` takes it back.

mod arguments;
mod grounds;
mod here;
mod ids;
mod revoke;
mod role;

use std::collections::BTreeMap;

use pgentra_azure::arm::AzureHostType;
use pgentra_connect::quote;
use pgentra_system::System;
use serde::Serialize;

use crate::blame::Blame;
use crate::confirm::confirmed;
use crate::identity::place::Place;
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::text::{Text, bold, command, text};
use arguments::HostAccess;
pub(crate) use arguments::{Grant, Revoke};
use grounds::Grounds;
use ids::PrincipalIds;
pub(crate) use revoke::run as revoke;
use role::DEFAULT_PORT;

/// The document of `-o json`.
#[derive(Serialize)]
struct GrantDocument {
    /// As the command line names it.
    host: String,
    /// Name of a virtual machine; of other hosts it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<String>,
    role: String,
    server: String,
    /// `flexible` or `single`.
    flavour: String,
    object_id: String,
    /// Null for a system-assigned identity.
    client_id: Option<String>,
    #[serde(flatten)]
    changed: Changed,
    /// Whether this is the machine and it signed in as the role; on another machine this cannot be
    /// tried.
    signed_in: bool,
    /// What the service account of a pod must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
    /// What the host is, in words.
    #[serde(skip)]
    described: String,
    /// What is left to do, and where to run the command.
    #[serde(skip)]
    left_to_do: Vec<String>,
    #[serde(skip)]
    place: &'static str,
    /// The command to run on the host.
    #[serde(skip)]
    command: String,
}

/// The changes that were made.
#[derive(Serialize)]
struct Changed {
    /// Whether the identity was assigned now, or its federated credential added.
    assigned: bool,
    /// Whether the role was created now.
    created: bool,
}

/// Checks the state, shows the plan, asks, and makes the changes.
pub(crate) async fn run(system: &System, Grant { access }: Grant) -> Outcome {
    let grounds = waiting("looking everything up", Grounds::find(system, &access)).await?;
    let ids = grounds.ids(&grounds.place).await?;
    let exists = grounds.database.exists(&access.role, ids).await?;
    let assigned = grounds.place.is_assigned();
    grounds.show(&access, assigned, exists);
    let is_done = assigned && exists;
    if !is_done && !access.yes && !confirmed().await? {
        output::say("nothing was changed");
        return Ok(());
    }
    let place = match assigned {
        true => grounds.place.clone(),
        false => waiting("assigning the identity", grounds.place.clone().assign(&grounds.manager)).await?,
    };
    let made = waiting("making the role", grounds.make_role(&access, &place, exists)).await;
    let ids = made.map_err(|problem| match assigned {
        true => problem,
        false => {
            let hint = problem.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
            problem.hint(format!(
                "{hint}the identity is assigned: run the same again, and it goes on from there"
            ))
        }
    })?;
    let signed_in = sign_in_here(system, &grounds, &place, &access).await?;
    let vm = place.host().filter(|host| host.kind == AzureHostType::VirtualMachine);
    let granted = GrantDocument {
        host: place.named.to_string(),
        vm: vm.map(|vm| vm.name.clone()),
        role: access.role.to_string(),
        server: grounds.database.host(),
        flavour: grounds.database.flavour().to_string(),
        object_id: ids.object_id.to_string(),
        client_id: place.user_assigned().map(|identity| identity.client_id.to_string()),
        changed: Changed { assigned: !assigned, created: !exists },
        signed_in,
        annotations: place.annotation().into_iter().collect(),
        described: place.described(),
        left_to_do: place.left_to_do(),
        place: place.where_to_run(),
        command: grounds.command(&place, access.role.as_str()),
    };
    match access.output.output {
        Format::Json => output::json(&granted),
        Format::Text => output::result(granted.text()),
    }
}

/// Signs in as the role if this is the host, which only a virtual machine can tell.
async fn sign_in_here(
    system: &System,
    grounds: &Grounds,
    place: &Place,
    access: &HostAccess,
) -> Outcome<bool> {
    let vm = place.host().filter(|host| host.kind == AzureHostType::VirtualMachine);
    let is_here = match vm {
        Some(vm) => here::is_here(system, &vm.id).await,
        None => false,
    };
    if is_here {
        let identity = place.user_assigned().map(|identity| identity.client_id);
        let cloud = access.caller.cloud;
        here::sign_in(system, &grounds.database, access.role.as_str(), identity, cloud).await?;
    } else if vm.is_some() {
        output::say(
            "not signed in as the role: that takes a token of the virtual machine, and this is not it",
        );
    } else {
        output::say("not signed in as the role: that takes a token of the host");
    }
    Ok(is_here)
}

impl Grounds {
    /// Creates the role, unless it exists, and checks the result.
    async fn make_role(&self, access: &HostAccess, place: &Place, exists: bool) -> Outcome<PrincipalIds> {
        let ids = self.ids(place).await?.ok_or_else(|| {
            Problem::new(Blame::Server, format!("the {} has no identity of its own", place.described()))
                .hint("it was changed by another client meanwhile: look with `pgentra identity show`")
        })?;
        if !exists {
            self.database.create(&access.role, ids).await?;
        }
        self.database.check(&access.role, ids.object_id).await?;
        Ok(ids)
    }

    /// The command that signs the host in, with the port, server name and identity that were found.
    fn command(&self, place: &Place, role: &str) -> String {
        let port = match self.database.port() {
            DEFAULT_PORT => String::new(),
            port => format!(" -p {port}"),
        };
        format!(
            "pgentra query -h {}{port} -U {} -d postgres{} -c 'SELECT version()'",
            quote::shell_word(&self.database.host()),
            quote::shell_word(&self.database.user_of(role)),
            place.selecting_option(),
        )
    }

    fn show(&self, access: &HostAccess, assigned: bool, exists: bool) {
        let sign = |done: bool| if done { "=" } else { "+" };
        output::say(&format!("{} {}", sign(assigned), self.place.plan_line()));
        let place = format!(" on {}", self.server_line());
        output::say(text![
            format!("{} role ", sign(exists)),
            bold(access.role.as_str()),
            place,
            ", mapped to that identity"
        ]);
    }
}

impl GrantDocument {
    fn text(&self) -> Text {
        let GrantDocument { described, role, server, object_id, command: line, place, .. } = self;
        let how = if self.signed_in { "signed in as it" } else { "the role is there and mapped to it" };
        let mut text = text![
            format!("The {described} (object id {object_id}) may sign in to {server} as "),
            bold(role),
            format!(": {how}.\n"),
        ];
        for line in &self.left_to_do {
            text.push(format!("{line}\n"));
        }
        text.push(text![format!("{place}: "), command(line), "\n"]);
        text
    }
}
