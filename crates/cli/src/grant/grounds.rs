//! All that is known before anything is changed.

use std::time::Duration;

use pgentra_azure::arm::{AzureServerType, ResourceManager};
use pgentra_azure::graph::{Graph, Search};
use pgentra_roles::Flavour;
use pgentra_system::System;
use uuid::Uuid;

use super::arguments::HostAccess;
use super::ids::PrincipalIds;
use super::role::RoleDatabase;
use crate::blame::Blame;
use crate::identity::azure;
use crate::identity::place::Place;
use crate::identity::server_ref::ServerRef;
use crate::options::Connection;
use crate::problem::{Outcome, Problem};
use crate::sign_in;

/// A new principal takes time to appear in Entra: the number of lookups, and the pause between
/// them.
const LOOKS: usize = 10;
const APART: Duration = Duration::from_secs(3);

/// The host, its identity, and the server, with those who are asked.
pub(super) struct Grounds {
    pub(super) manager: ResourceManager,
    graph: Graph,
    pub(super) place: Place,
    pub(super) database: RoleDatabase,
    /// What the server is, where Azure was asked for it.
    server_type: Option<AzureServerType>,
}

impl Grounds {
    /// Looks everything up.
    pub(super) async fn find(system: &System, access: &HostAccess) -> Outcome<Self> {
        // A name with a dot is a host already.
        let name = access.server.as_deref().filter(|name| !name.contains('.'));
        let server_ref: Option<ServerRef> = name.map(str::parse).transpose().map_err(|error: String| {
            Problem::new(Blame::Usage, error)
                .hint("a host name with a dot in it is taken too, and so is -h HOST")
        })?;
        let group = access.azure.resource_group.as_deref();
        let manager = azure::manager(system, &access.azure, &access.caller).await?;
        let graph = azure::graph(system, &access.azure, &access.caller)?;
        let named = (&access.place, access.identity.as_deref());
        let place = Place::find(&manager, group, named, (&access.federation, access.caller.cloud)).await?;
        let mut server = access.connection.clone();
        let mut server_type = None;
        if let Some(named) = &server_ref {
            let found = named.find(&manager, group).await?;
            (server.host, server_type) = (Some(found.host), Some(found.kind));
        } else if access.server.is_some() {
            server.host.clone_from(&access.server);
        }
        let connection = Connection { conninfo: None, server };
        let connector = sign_in::connector(system, &connection, &access.caller)?;
        let database = RoleDatabase::open(connector).await?;
        Ok(Self { manager, graph, place, database, server_type })
    }

    /// The server's host, and what it is.
    pub(super) fn server_line(&self) -> String {
        let what = match self.server_type {
            Some(kind) => kind.to_string(),
            None => format!("{} server", self.database.flavour()),
        };
        format!("{} ({what})", self.database.host())
    }

    /// The principal for the role; `None` if it does not exist before the identity is assigned.
    pub(super) async fn ids(&self, place: &Place) -> Outcome<Option<PrincipalIds>> {
        if let Some(one) = place.user_assigned() {
            return Ok(Some(PrincipalIds { object_id: one.object_id, client_id: Some(one.client_id) }));
        }
        let is_single = self.database.flavour() == Flavour::Single;
        match (place.object_id(), place.host()) {
            (Some(object_id), _) => {
                let client_id = if is_single { Some(self.client_id(object_id).await?) } else { None };
                Ok(Some(PrincipalIds { object_id, client_id }))
            }
            (None, host) => {
                if let Some(host) = host.filter(|_| is_single) {
                    // Fails before any change is made if the tenant does not answer.
                    self.graph.find(Search::ServicePrincipals, &host.name, false).await?;
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
}
