//! `pgentra identity`: identities of hosts, principals of the tenant, administrators of servers.

mod arguments;
pub(crate) mod azure;
pub(crate) mod host_ref;
pub(crate) mod place;
pub(crate) mod server_ref;
mod shown;

use pgentra_azure::arm::{Administrator, AdministratorKind, AzureHost, ResourceManager, UserAssigned};
use pgentra_azure::graph::{Graph, Principal, PrincipalKind, Search};
use pgentra_connect::quote;
use pgentra_system::System;
use uuid::Uuid;

use crate::blame::Blame;
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use arguments::{AdminChange, AdminList, Assign, Find, PrincipalType, ServerAdmin, Show};
pub(crate) use arguments::{Azure, FederationArguments, IdentityCommand};
use host_ref::HostRef;
use place::{HostProof, Place};
use shown::{Admin, Found, IdentityDocument, MachineDocument};

/// Runs one of the commands.
pub(crate) async fn run(system: &System, command: IdentityCommand, is_verbose: bool) -> Outcome {
    match command {
        IdentityCommand::Assign(arguments) => assign(system, arguments).await,
        IdentityCommand::Show(arguments) => show(system, arguments).await,
        IdentityCommand::Find(arguments) => find(system, arguments, is_verbose).await,
        IdentityCommand::ServerAdmin(ServerAdmin::List(arguments)) => list(system, arguments).await,
        IdentityCommand::ServerAdmin(ServerAdmin::Add(arguments)) => add(system, arguments).await,
        IdentityCommand::ServerAdmin(ServerAdmin::Remove(arguments)) => remove(system, arguments).await,
    }
}

async fn assign(system: &System, arguments: Assign) -> Outcome {
    let manager = azure::manager(system, &arguments.azure, &arguments.caller).await?;
    let group = arguments.azure.resource_group.as_deref();
    let named = arguments.host.named();
    let what = (&arguments.federation, arguments.caller.cloud);
    let found = Place::find(&manager, group, (&named, arguments.identity.as_deref()), what);
    let place = waiting("asking Azure", found).await?;
    if let HostProof::Identity(_) = &place.proof {
        return Err(Problem::new(
            Blame::Usage,
            format!("{named} is an identity, which is assigned to a host"),
        )
        .hint("name the host, and the identity with --identity"));
    }
    let after = if place.is_assigned() {
        output::say(&format!("{} has it already; nothing was changed", place.described()));
        place
    } else {
        waiting("asking Azure", place.assign(&manager)).await?
    };
    let format = arguments.output.output;
    match &after.proof {
        HostProof::Assigned { host, .. } => {
            let graph = azure::graph(system, &arguments.azure, &arguments.caller)?;
            print(host, &graph, format).await?;
        }
        HostProof::Federated { identity, .. } | HostProof::Identity(identity) => {
            print_identity(&manager, identity, format).await?;
        }
    }
    after.left_to_do().iter().for_each(output::say);
    Ok(())
}

async fn show(system: &System, arguments: Show) -> Outcome {
    let manager = azure::manager(system, &arguments.azure, &arguments.caller).await?;
    let group = arguments.azure.resource_group.as_deref();
    match arguments.host.named() {
        HostRef::Azure(kind, name) => {
            let host = waiting("asking Azure", manager.host(kind, group, &name)).await?;
            let graph = azure::graph(system, &arguments.azure, &arguments.caller)?;
            print(&host, &graph, arguments.output.output).await
        }
        HostRef::Identity(name) => {
            let identity = waiting("asking Azure", manager.identity(group, &name)).await?;
            print_identity(&manager, &identity, arguments.output.output).await
        }
        other => Err(Problem::new(Blame::Usage, format!("{other} has no identity of its own"))
            .hint("its federated credentials are those of an identity: pgentra identity show identity/NAME")),
    }
}

async fn print(host: &AzureHost, graph: &Graph, format: Format) -> Outcome {
    let own = match host.system_assigned {
        None => None,
        // A caller who may read a machine may lack the right to read the tenant, which is not
        // required here.
        Some(own) => {
            waiting("asking Azure", graph.by_object_id(own.object_id)).await.unwrap_or_else(|error| {
                tracing::info!(%error, "the tenant does not tell the client id");
                None
            })
        }
    };
    let machine = MachineDocument::of(host, own.as_ref());
    match format {
        Format::Text => output::result(machine.text()),
        Format::Json => output::json(&machine),
    }
}

async fn print_identity(manager: &ResourceManager, identity: &UserAssigned, format: Format) -> Outcome {
    let federated = waiting("asking Azure", manager.federated(identity)).await?;
    let document = IdentityDocument::of(identity, federated);
    match format {
        Format::Text => output::result(document.text()),
        Format::Json => output::json(&document),
    }
}

async fn find(system: &System, arguments: Find, is_verbose: bool) -> Outcome {
    let search = match arguments.kind {
        PrincipalType::Service => Search::ServicePrincipals,
        PrincipalType::User => Search::Users,
        PrincipalType::Group => Search::Groups,
    };
    let azure = Azure { graph_endpoint: arguments.graph_endpoint, ..Azure::default() };
    let graph = azure::graph(system, &azure, &arguments.caller)?;
    let found = waiting("asking Azure", graph.find(search, &arguments.name, arguments.prefix)).await?;
    if found.is_empty() {
        let how = if arguments.prefix { "has a name that begins like" } else { "is called" };
        return Err(Problem::new(
            Blame::Usage,
            format!("no principal in the tenant {how} {}", quote::name(&arguments.name)),
        )
        .hint("--prefix finds what begins so; --kind user and --kind group look for persons and groups"));
    }
    let found: Vec<_> = found.iter().map(Found::of).collect();
    match arguments.output.output {
        Format::Text => {
            let width = output::result_width().filter(|_| !is_verbose);
            output::result(Found::table(&found, width))
        }
        Format::Json => output::json(&found),
    }
}

async fn list(system: &System, arguments: AdminList) -> Outcome {
    let manager = azure::manager(system, &arguments.azure, &arguments.caller).await?;
    let group = arguments.azure.resource_group.as_deref();
    let server = waiting("asking Azure", arguments.server.find(&manager, group)).await?;
    let all = waiting("asking Azure", manager.administrators(&server)).await?;
    let all: Vec<_> = all.iter().map(Admin::of).collect();
    match arguments.output.output {
        Format::Text => output::result(Admin::table(&all, output::result_width())),
        Format::Json => output::json(&all),
    }
}

async fn add(system: &System, AdminChange { who, of }: AdminChange) -> Outcome {
    let manager = azure::manager(system, &of.azure, &of.caller).await?;
    let group = of.azure.resource_group.as_deref();
    let server = waiting("asking Azure", of.server.find(&manager, group)).await?;
    let found = principal(&azure::graph(system, &of.azure, &of.caller)?, &who).await?;
    let kind = match found.kind {
        PrincipalKind::User => AdministratorKind::User,
        PrincipalKind::Group => AdministratorKind::Group,
        _ => AdministratorKind::ServicePrincipal,
    };
    let new = Administrator { object_id: found.object_id, name: found.name, kind };
    let name = new.name.len();
    if name > pgentra_roles::NAME_LIMIT {
        let message = format!("{} has {name} bytes, and a role's name at most 63", quote::name(&new.name));
        return Err(
            Problem::new(Blame::Usage, message).hint("make a group with a shorter name an administrator")
        );
    }
    if !waiting("asking Azure", manager.add_administrator(&server, &new)).await? {
        output::say(&format!("{} is an administrator already; nothing was changed", quote::line(&new.name)));
    }
    changed(&new, of.output.output)
}

async fn remove(system: &System, AdminChange { who, of }: AdminChange) -> Outcome {
    let manager = azure::manager(system, &of.azure, &of.caller).await?;
    let group = of.azure.resource_group.as_deref();
    let server = waiting("asking Azure", of.server.find(&manager, group)).await?;
    let id = who.parse::<Uuid>().ok();
    let mut all = waiting("asking Azure", manager.administrators(&server)).await?;
    all.retain(|one| Some(one.object_id) == id || one.name == who);
    match (all.pop(), all.len()) {
        (Some(one), 0) => {
            waiting("asking Azure", manager.remove_administrator(&server, one.object_id)).await?;
            changed(&one, of.output.output)
        }
        (None, _) => Err(Problem::new(
            Blame::Usage,
            format!("{} is no administrator of {}", quote::name(&who), quote::name(&server.name)),
        )
        .hint(format!(
            "who is: pgentra identity server-admin list --server {}",
            quote::shell_word(&of.server.to_string())
        ))),
        (Some(_), _) => Err(Problem::new(
            Blame::Usage,
            format!("several administrators are called {}", quote::name(&who)),
        )
        .hint("name the one you mean by its object id")),
    }
}

fn changed(administrator: &Administrator, format: Format) -> Outcome {
    match format {
        Format::Text => output::result(Admin::table(&[Admin::of(administrator)], output::result_width())),
        Format::Json => output::json(&Admin::of(administrator)),
    }
}

/// The only principal that matches, of any kind.
async fn principal(graph: &Graph, who: &str) -> Outcome<Principal> {
    let unknown = |hint: &str| {
        Problem::new(Blame::Usage, format!("no principal in the tenant is {}", quote::name(who))).hint(hint)
    };
    if let Ok(id) = who.parse::<Uuid>() {
        let hint =
            "an object id is that of the user, the group, or the enterprise application; not the client id";
        return waiting("asking Azure", graph.by_object_id(id)).await?.ok_or_else(|| unknown(hint));
    }
    let mut found = Vec::new();
    for search in [Search::Users, Search::Groups, Search::ServicePrincipals] {
        found.extend(waiting("asking Azure", graph.find(search, who, false)).await?);
    }
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(unknown("look for what begins so: pgentra identity find --prefix NAME --kind user")),
        (Some(last), _) => {
            found.push(last);
            let ids: Vec<_> = found.iter().map(|one| format!("{} {}", one.kind, one.object_id)).collect();
            Err(Problem::new(
                Blame::Usage,
                format!("{} principals are called {}: {}", ids.len(), quote::name(who), ids.join(", ")),
            )
            .hint("name the one you mean by its object id"))
        }
    }
}
