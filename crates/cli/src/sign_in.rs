//! Builds the credential, resource and target from the arguments.

use pgentra_connect::{Connector, Layers, Session, Target};
use pgentra_identity::{Credential, Resource, Selector, Verdict};
use pgentra_system::System;

use crate::blame::Blame;
use crate::options::{Connection, Identity, Server};
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// A credential and the resource its tokens are for.
pub(crate) fn credential(system: &System, identity: &Identity) -> Outcome<(Credential, Resource)> {
    let resource = resource(identity)?;
    let mut builder =
        Credential::builder(system.clone()).cloud(identity.cloud).deadline(identity.token_timeout);
    // Without a flag AZURE_CLIENT_ID may name the identity.
    if let Some(selector) = selector(identity)? {
        builder = builder.selector(selector);
    }
    if let Some(tenant) = &identity.tenant {
        builder = builder.tenant(tenant);
    }
    if let Some(command) = &identity.token_command {
        builder = builder.command(["/bin/sh", "-c", command]);
    }
    if let Some(source) = identity.source {
        builder = builder.source(source);
    }
    let credential = builder.build()?;
    let decision = credential.decision();
    if let Some(one) = decision.considered().iter().find(|one| one.verdict() == Verdict::First) {
        tracing::info!(source = %one.source(), because = %one.reason(), "token source");
    }
    tracing::debug!(%decision, "all token sources");
    Ok((credential, resource))
}

/// The resource of the tokens.
pub(crate) fn resource(identity: &Identity) -> Outcome<Resource> {
    match &identity.resource {
        Some(text) => text.parse().map_err(|error| {
            Problem::new(Blame::Usage, error)
                .hint("--resource takes the URI of an API, such as https://ossrdbms-aad.database.windows.net")
        }),
        None => Ok(identity.cloud.postgres_resource()),
    }
}

/// The server, role and database to sign in to.
pub(crate) fn target(system: &System, connection: &Connection) -> Outcome<Target> {
    let target = Target::resolve(&layers(system, connection.conninfo.as_deref(), &connection.server)?)?;
    tracing::info!(%target, "connection");
    Ok(target)
}

/// All layers of connection settings.
pub(crate) fn layers(system: &System, conninfo: Option<&str>, server: &Server) -> Outcome<Layers> {
    let mut flags = Vec::new();
    for (keyword, value) in [
        ("host", &server.host),
        ("port", &server.port),
        ("user", &server.username),
        ("dbname", &server.dbname),
    ] {
        if let Some(value) = value {
            flags.push((keyword, value.clone()));
        }
    }
    Ok(Layers::gather(conninfo, &flags, system.env(), system.files())?)
}

/// A connector to the given server with the given identity.
pub(crate) fn connector(system: &System, connection: &Connection, identity: &Identity) -> Outcome<Connector> {
    let target = target(system, connection)?;
    let (credential, resource) = credential(system, identity)?;
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
