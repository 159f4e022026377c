//! Builds the credential, resource and target from the arguments.

use pgentra_connect::{Connector, Layers, Session, Target};
use pgentra_identity::{
    CommandServer, Credential, IdentityOptions, InvalidResource, Resource, Selector, Verdict,
};
use pgentra_system::System;

use crate::blame::Blame;
use crate::options::{Connection, Identity};
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// A credential and the resource its tokens are for.
pub(crate) fn credential(system: &System, identity: &Identity) -> Outcome<(Credential, Resource)> {
    credential_for(system, identity, None)
}

/// The same, for tokens that are sent to this server. A token command learns its first host, its
/// port and the role.
pub(crate) fn credential_for(
    system: &System,
    identity: &Identity,
    target: Option<&Target>,
) -> Outcome<(Credential, Resource)> {
    let mut options = options(identity)?;
    options.command_server = target.map(Target::command_server).unwrap_or_default();
    let credential = options.credential(system)?;
    let decision = credential.decision();
    if let Some(one) = decision.considered().iter().find(|one| one.verdict() == Verdict::First) {
        tracing::info!(source = %one.source(), because = %one.reason(), "token source");
    }
    tracing::debug!(%decision, "all token sources");
    Ok((credential, options.resource()))
}

/// The flags as options of a credential.
fn options(identity: &Identity) -> Outcome<IdentityOptions> {
    let resource = identity.resource.as_ref().map(|text| {
        text.parse().map_err(|error: InvalidResource| {
            Problem::new(Blame::Usage, error)
                .hint("--resource takes the URI of an API, such as https://ossrdbms-aad.database.windows.net")
        })
    });
    Ok(IdentityOptions {
        resource: resource.transpose()?,
        selector: selector(identity)?,
        source: identity.source,
        token_command: identity.token_command.clone(),
        token_lifetime: identity.token_lifetime,
        command_server: CommandServer::default(),
        tenant: identity.tenant.clone(),
        cloud: identity.cloud,
        token_timeout: identity.token_timeout,
    })
}

/// The server, role and database to sign in to.
pub(crate) fn target(system: &System, connection: &Connection) -> Outcome<Target> {
    let (conninfo, flags) = (connection.conninfo.as_deref(), connection.server.keywords());
    let target = Target::resolve(&Layers::gather(conninfo, &flags, system.env(), system.files())?)?;
    tracing::info!(%target, "connection");
    Ok(target)
}

/// The server that the environment names, if it names one.
pub(crate) fn target_of_environment(system: &System) -> Option<Target> {
    let layers = Layers::gather(None, &[], system.env(), system.files()).ok()?;
    Target::resolve_server(&layers).ok()
}

/// A connector to the given server with the given identity.
pub(crate) fn connector(system: &System, connection: &Connection, identity: &Identity) -> Outcome<Connector> {
    let target = target(system, connection)?;
    let (credential, resource) = credential_for(system, identity, Some(&target))?;
    Ok(Connector::new(target, credential, resource)?)
}

/// Opens a session and shows the wait.
pub(crate) async fn connect(connector: &Connector) -> Outcome<Session> {
    let server = connector.target().endpoints().first().map(ToString::to_string).unwrap_or_default();
    Ok(waiting(&format!("waiting for a token and for {server}"), connector.connect()).await?)
}

fn selector(identity: &Identity) -> Outcome<Option<Selector>> {
    let guid = |flag: &str, text: &str| {
        text.parse().map_err(|_| {
            Problem::new(Blame::Usage, format!("{flag} takes a GUID, not `{text}`"))
                .hint("find it with: az identity show -g GROUP -n NAME --query '[clientId, principalId]'")
        })
    };
    Ok(match (&identity.client_id, &identity.object_id, &identity.resource_id) {
        (Some(id), _, _) => Some(Selector::ClientId(guid("--client-id", id)?)),
        (_, Some(id), _) => Some(Selector::ObjectId(guid("--object-id", id)?)),
        (_, _, Some(id)) => Some(Selector::ResourceId(id.clone())),
        _ => None,
    })
}
