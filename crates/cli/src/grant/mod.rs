//! `pgentra grant`: the administrator's part of the article in one command. Identity on the virtual
//! machine, role in the database, and a check that it works.

mod arguments;
mod here;
mod ids;
mod role;

use std::time::Duration;

use pgentra_azure::arm::{ResourceManager, Vm, Wanted};
use pgentra_azure::graph::{Graph, Search};
use pgentra_connect::quote;
use pgentra_roles::Flavour;
use pgentra_system::System;
use serde::Serialize;
use uuid::Uuid;

use crate::blame::Blame;
use crate::confirm::confirmed;
use crate::identity::{self, azure};
use crate::options::{Connection, Format};
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::sign_in;
use crate::text::{Text, bold, command, text};
pub(crate) use arguments::Grant;
use ids::PrincipalIds;
use role::{DEFAULT_PORT, RoleDatabase};

/// A new principal takes time to appear in Entra: the number of lookups, and the pause between
/// them.
const LOOKS: usize = 10;
const APART: Duration = Duration::from_secs(3);

/// All that is known before anything is changed.
struct Grounds {
    manager: ResourceManager,
    graph: Graph,
    vm: Vm,
    wanted: Wanted,
    database: RoleDatabase,
}

/// The document of `-o json`.
#[derive(Serialize)]
struct GrantDocument {
    vm: String,
    role: String,
    server: String,
    /// `flexible` or `single`.
    flavour: String,
    object_id: String,
    #[serde(flatten)]
    changed: Changed,
    /// Whether this is the machine and it signed in as the role; on another machine this cannot be
    /// tried.
    signed_in: bool,
    /// The command to run on the machine.
    #[serde(skip)]
    command: String,
}

/// The changes that were made.
#[derive(Serialize)]
struct Changed {
    /// Whether the identity was assigned now.
    assigned: bool,
    /// Whether the role was created now.
    created: bool,
}

/// Checks the state, shows the plan, asks, and makes the changes.
pub(crate) async fn run(system: &System, arguments: Grant) -> Outcome {
    let grounds = waiting("looking everything up", grounds(system, &arguments)).await?;
    let ids = grounds.ids(&grounds.vm).await?;
    let exists = grounds.database.exists(&arguments.role, ids).await?;
    let assigned = grounds.vm.has(&grounds.wanted);
    grounds.show(&arguments, assigned, exists);
    let is_done = assigned && exists;
    if !is_done && !arguments.yes && !confirmed().await? {
        output::say("nothing was changed");
        return Ok(());
    }
    let vm = match assigned {
        true => grounds.vm.clone(),
        false => {
            waiting("assigning the identity", grounds.manager.assign(&grounds.vm, &grounds.wanted)).await?
        }
    };
    let made = waiting("making the role", grounds.make_role(&arguments, &vm, exists)).await;
    let ids = made.map_err(|problem| match assigned {
        true => problem,
        false => {
            let hint = problem.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
            problem.hint(format!(
                "{hint}the identity is assigned: run the same again, and it goes on from there"
            ))
        }
    })?;
    let signed_in = here::is_here(system, &vm.id).await;
    if signed_in {
        here::sign_in(
            system,
            &grounds.database,
            arguments.role.as_str(),
            &grounds.wanted,
            arguments.caller.cloud,
        )
        .await?;
    } else {
        output::say(
            "not signed in as the role: that takes a token of the virtual machine, and this is not it",
        );
    }
    let granted = GrantDocument {
        vm: vm.name,
        role: arguments.role.to_string(),
        server: grounds.database.host(),
        flavour: grounds.database.flavour().to_string(),
        object_id: ids.object_id.to_string(),
        changed: Changed { assigned: !assigned, created: !exists },
        signed_in,
        command: grounds.command(arguments.role.as_str()),
    };
    match arguments.output.output {
        Format::Json => output::json(&granted),
        Format::Text => output::result(granted.text()),
    }
}

async fn grounds(system: &System, arguments: &Grant) -> Outcome<Grounds> {
    let group = arguments.azure.resource_group.as_deref();
    let manager = azure::manager(system, &arguments.azure, &arguments.caller).await?;
    let graph = azure::graph(system, &arguments.azure, &arguments.caller)?;
    let vm = manager.vm(group, &arguments.vm).await?;
    let wanted = identity::wanted(&manager, group, arguments.identity.as_deref()).await?;
    let mut server = arguments.connection.clone();
    if let Some(name) = &arguments.server {
        // A name with a dot is a host already.
        server.host = Some(match name.contains('.') {
            true => name.clone(),
            false => manager.server(group, name).await?.host,
        });
    }
    let connection = Connection { conninfo: None, server };
    let connector = sign_in::connector(system, &connection, &arguments.caller)?;
    let database = RoleDatabase::open(connector).await?;
    Ok(Grounds { manager, graph, vm, wanted, database })
}

impl Grounds {
    /// The principal for the role; `None` if it does not exist before the identity is assigned.
    async fn ids(&self, vm: &Vm) -> Outcome<Option<PrincipalIds>> {
        match (&self.wanted, vm.system_assigned) {
            (Wanted::UserAssigned(one), _) => {
                Ok(Some(PrincipalIds { object_id: one.object_id, client_id: Some(one.client_id) }))
            }
            (Wanted::SystemAssigned, Some(own)) => {
                let client_id = match self.database.flavour() {
                    Flavour::Single => Some(self.client_id(own.object_id).await?),
                    _ => None,
                };
                Ok(Some(PrincipalIds { object_id: own.object_id, client_id }))
            }
            (Wanted::SystemAssigned, None) => {
                if self.database.flavour() == Flavour::Single {
                    // Fails before any change is made if the tenant does not answer.
                    self.graph.find(Search::ServicePrincipals, &vm.name, false).await?;
                }
                Ok(None)
            }
        }
    }

    async fn client_id(&self, object_id: Uuid) -> Outcome<Uuid> {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(APART).await;
            }
            if let Some(client_id) = self.graph.by_object_id(object_id).await?.and_then(|one| one.client_id) {
                return Ok(client_id);
            }
        }
        Err(Problem::new(Blame::Server, "the tenant does not know the new identity yet")
            .hint("it takes Entra a while: run the same again in a minute"))
    }

    /// Creates the role, unless it exists, and checks the result.
    async fn make_role(&self, arguments: &Grant, vm: &Vm, exists: bool) -> Outcome<PrincipalIds> {
        let ids = self.ids(vm).await?.ok_or_else(|| {
            Problem::new(Blame::Server, format!("the virtual machine {} has no identity of its own", vm.name))
                .hint("it was changed by another client meanwhile: look with `pgentra identity show`")
        })?;
        if !exists {
            self.database.create(&arguments.role, ids).await?;
        }
        self.database.check(&arguments.role, ids.object_id).await?;
        Ok(ids)
    }

    /// The command that signs the machine in, with the port, server name and identity that were
    /// found.
    fn command(&self, role: &str) -> String {
        let port = match self.database.port() {
            DEFAULT_PORT => String::new(),
            port => format!(" -p {port}"),
        };
        let identity = match &self.wanted {
            Wanted::SystemAssigned => String::new(),
            Wanted::UserAssigned(one) => format!(" --client-id {}", one.client_id),
        };
        format!(
            "pgentra query -h {}{port} -U {} -d postgres{identity} -c 'SELECT version()'",
            quote::shell_word(&self.database.host()),
            quote::shell_word(&self.database.user_of(role)),
        )
    }

    fn show(&self, arguments: &Grant, assigned: bool, exists: bool) {
        let sign = |done: bool| if done { "=" } else { "+" };
        let identity = match &self.wanted {
            Wanted::SystemAssigned => "its own identity (system-assigned)".to_owned(),
            Wanted::UserAssigned(one) => format!("the identity {}", quote::line(&one.name)),
        };
        let kept = self.vm.user_assigned.len();
        let kept = if assigned || kept == 0 { String::new() } else { format!("; {kept} others stay") };
        output::say(&format!(
            "{} virtual machine {}: {identity}{kept}",
            sign(assigned),
            quote::line(&self.vm.name)
        ));
        let place = format!(" on {} ({} server)", self.database.host(), self.database.flavour());
        output::say(text![
            format!("{} role ", sign(exists)),
            bold(arguments.role.as_str()),
            place,
            ", mapped to that identity"
        ]);
    }
}

impl GrantDocument {
    fn text(&self) -> Text {
        let GrantDocument { vm, role, server, object_id, command: line, .. } = self;
        let how = if self.signed_in { "signed in as it" } else { "the role is there and mapped to it" };
        text![
            format!(
                "The virtual machine {} (object id {object_id}) may sign in to {server} as ",
                quote::line(vm)
            ),
            bold(role),
            format!(": {how}.\nOn the machine: "),
            command(line),
            "\n",
        ]
    }
}
