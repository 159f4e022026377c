//! `pgentra role`: roles, their principals and their privileges.

mod arguments;
mod show;

use std::io::Write as _;
use std::path::Path;

use pgentra_azure::graph::Graph;
use pgentra_azure::{Endpoints, InvalidEndpoint};
use pgentra_roles::{NewRole, Options, RolesFile, ServerSessions};
use pgentra_system::System;

use crate::blame::Blame;
use crate::confirm::confirmed;
use crate::identity::azure::trusting;
use crate::input::{self, called};
use crate::options::{Connection, Format, Identity};
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::{output, sign_in};

pub(crate) use arguments::RoleCommand;

/// The largest file of roles that is read.
const FILE_LIMIT: usize = 4 * 1024 * 1024;

/// Runs one of the commands. A list has what fits on the terminal, unless `is_verbose`.
pub(crate) async fn run(system: &System, command: RoleCommand, is_verbose: bool) -> Outcome {
    match command {
        RoleCommand::List(arguments) => list(system, arguments, is_verbose).await,
        RoleCommand::Create(arguments) => create(system, arguments).await,
        RoleCommand::Drop(arguments) => drop(system, arguments).await,
        RoleCommand::Plan(arguments) if arguments.exit_code => with_exit_code(system, arguments.plan).await,
        RoleCommand::Plan(arguments) => plan(system, arguments.plan, None).await.map(|_| ()),
        RoleCommand::Apply(arguments) => {
            plan(system, arguments.plan, Some(Asking::unless(arguments.yes))).await.map(|_| ())
        }
        RoleCommand::Import(arguments) => import(system, &arguments).await,
    }
}

/// Shows the plan; the exit code tells what it is, as that of other tools that make plans.
async fn with_exit_code(system: &System, arguments: arguments::PlanArguments) -> Outcome {
    match plan(system, arguments, None).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(Blame::DIFFERENCE, "the server differs from the file").told()),
        Err(problem) => Err(problem.blaming(Blame::Ours)),
    }
}

async fn import(system: &System, arguments: &arguments::ImportArguments) -> Outcome {
    let server = server(system, &arguments.connection, &arguments.identity)?;
    let import = waiting("reading the roles", pgentra_roles::Import::read(&server)).await?;
    let Some(path) = &arguments.file else { return output::exact(&import.to_toml()) };
    let unwritable = |error: std::io::Error| {
        Problem::new(Blame::Usage, format!("cannot write {}: {error}", path.display()))
            .hint("-f names a new file in a folder that exists; without -f the file is printed")
    };
    let mut file = std::fs::File::options().write(true).create_new(true).open(path).map_err(unwritable)?;
    file.write_all(import.to_toml().as_bytes()).map_err(unwritable)?;
    for what in import.left_out() {
        output::say(&format!("left out: {}", pgentra_connect::quote::line(what)));
    }
    Ok(())
}

async fn list(system: &System, arguments: arguments::List, is_verbose: bool) -> Outcome {
    let server = server(system, &arguments.connection, &arguments.identity)?;
    let found = waiting("reading the roles", server.roles()).await?;
    let orphans = match arguments.orphans {
        true => Some(found.orphans(&graph(system, &arguments.identity)?).await?),
        false => None,
    };
    match arguments.output.output {
        Format::Text => {
            let width = output::result_width().filter(|_| !is_verbose);
            output::result(show::table(&found, orphans.as_ref(), width))
        }
        Format::Json => output::json(&show::List::of(&found, orphans.as_ref())),
    }
}

async fn create(system: &System, arguments: arguments::Create) -> Outcome {
    let identity = match (&arguments.principal.object_id, &arguments.principal.client_id) {
        (Some(id), _) => pgentra_roles::PrincipalRef::ObjectId(guid("--object-id", id)?),
        (None, Some(id)) => pgentra_roles::PrincipalRef::ClientId(guid("--client-id", id)?),
        (None, None) => pgentra_roles::PrincipalRef::Name,
    };
    let role = NewRole {
        name: arguments.name,
        kind: arguments.principal.kind,
        identity,
        is_admin: arguments.admin,
        is_mfa: arguments.mfa,
    };
    let server = server(system, &arguments.connection, &arguments.identity)?;
    let graph = graph(system, &arguments.identity)?;
    let plan = waiting("reading the roles", role.plan(&server, Some(&graph))).await?;
    carry_out(&server, &plan, arguments.run, Asking::Not).await
}

async fn drop(system: &System, arguments: arguments::DropArguments) -> Outcome {
    let role = pgentra_roles::RoleDrop {
        name: arguments.name,
        reassign_to: arguments.reassign_to,
        revoke: arguments.revoke,
    };
    let server = server(system, &arguments.connection, &arguments.identity)?;
    let plan = waiting("reading the roles", role.plan(&server)).await?;
    carry_out(&server, &plan, arguments.run, Asking::unless(arguments.yes)).await
}

/// The changes of a plan that is not applied yet.
pub(crate) fn difference(plan: &pgentra_roles::Plan) -> crate::text::Text {
    show::difference(plan, false)
}

/// Shows the plan; applies it if `apply` says whether to ask first. Returns whether there was nothing to do.
async fn plan(system: &System, arguments: arguments::PlanArguments, apply: Option<Asking>) -> Outcome<bool> {
    let server = server(system, &arguments.connection, &arguments.identity)?;
    let text = read(system, &arguments.file).await?;
    let file = RolesFile::parse(&text, server.default_database()).map_err(|faults| {
        Problem::new(Blame::Usage, format!("{}: {faults}", called(&arguments.file)))
            .hint("what a file of roles holds is in docs/roles.md; nothing was asked of the server")
    })?;
    let prune = arguments.prune.wanted();
    let options = Options { prune, prune_groups: arguments.prune_groups, orphans: arguments.tenant.orphans };
    let graph = graph(system, &arguments.identity)?;
    let made = pgentra_roles::Plan::make(&server, &file, options, Some(&graph));
    let plan = waiting("comparing the server with the file", made).await.map_err(|error| match &error {
        pgentra_roles::RolesError::Faults(faults) => {
            Problem::new(Blame::Usage, format!("{}: {faults}", called(&arguments.file)))
                .hint(error.hint().unwrap_or_else(|| "nothing was changed".to_owned()))
        }
        _ => Problem::from(error),
    })?;
    match apply {
        Some(asking) => carry_out(&server, &plan, arguments.run, asking).await?,
        None => show(&plan, arguments.run, false)?,
    }
    Ok(plan.changes().is_empty())
}

/// Whether the user is asked before a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    First,
    Not,
}

impl Asking {
    fn unless(yes: bool) -> Self {
        if yes { Self::Not } else { Self::First }
    }
}

/// Applies the changes and shows them, unless they are only printed or the user declines.
async fn carry_out(
    server: &ServerSessions,
    plan: &pgentra_roles::Plan,
    run: arguments::Run,
    asking: Asking,
) -> Outcome {
    let changes_something = !run.print_sql && !plan.changes().is_empty();
    if changes_something && asking == Asking::First {
        output::ask(show::difference(plan, false));
        if !confirmed().await? {
            output::say("nothing was changed");
            return Ok(());
        }
    }
    if !run.print_sql {
        waiting("changing roles", plan.apply(server)).await?;
    }
    match run.output.output {
        // The plan is on the terminal already.
        Format::Text if changes_something && asking == Asking::First => {
            output::result(&show::sum(plan, true))
        }
        _ => show(plan, run, true),
    }
}

fn show(plan: &pgentra_roles::Plan, run: arguments::Run, applied: bool) -> Outcome {
    match (run.print_sql, run.output.output) {
        (true, _) => output::exact(&plan.script()?),
        (false, Format::Text) => output::result(show::difference(plan, applied)),
        (false, Format::Json) => output::json(&show::Difference::of(plan, applied)),
    }
}

fn server(system: &System, connection: &Connection, identity: &Identity) -> Outcome<ServerSessions> {
    Ok(ServerSessions::new(sign_in::connector(system, connection, identity)?))
}

/// A client of Microsoft Graph, if the identity may read the tenant. It sends no request yet.
fn graph(system: &System, identity: &Identity) -> Outcome<Graph> {
    let unusable = |error: InvalidEndpoint| {
        Problem::new(Blame::Usage, error)
            .hint("PGENTRA_GRAPH_ENDPOINT is an https URL; leave it out for Azure's own")
    };
    let mut endpoints = Endpoints::of(identity.cloud).map_err(unusable)?;
    if let Some(url) = system.env().get("PGENTRA_GRAPH_ENDPOINT") {
        endpoints = endpoints.with_graph(&url).map_err(unusable)?;
    }
    let (credential, _) = sign_in::credential(system, identity)?;
    Ok(Graph::new(&trusting(system)?, &credential, &endpoints))
}

fn guid(flag: &str, text: &str) -> Outcome<uuid::Uuid> {
    pgentra_roles::guid(text).ok_or_else(|| {
        Problem::new(
            Blame::Usage,
            format!("{flag} takes a GUID such as 00000000-1111-2222-3333-444444444444, not `{text}`"),
        )
        .hint("find it with: az ad sp show --id NAME --query '[id, appId]'; the first is the object id")
    })
}

async fn read(system: &System, path: &Path) -> Outcome<String> {
    input::text(system, path, FILE_LIMIT).await.map_err(|error| {
        Problem::new(Blame::Usage, format!("cannot read {}: {error}", called(path)))
            .hint("-f names a file of roles, as docs/roles.md describes it; - reads standard input")
    })
}
