use std::fmt;
use std::str::FromStr;

use pgentra_connect::quote;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ResourceManager, ResourceType};
use crate::client::{Ask, Method};
use crate::{AzureError, AzureErrorKind};

/// Flexible servers, and their api-version: the newest stable one.
const SERVERS: ResourceType =
    ResourceType { path: "Microsoft.DBforPostgreSQL/flexibleServers", version: "2025-08-01" };

/// A flexible server of Azure Database for PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlexibleServer {
    /// Resource id, `/subscriptions/…/flexibleServers/NAME`.
    pub id: String,
    /// Name of the resource, as `az postgres flexible-server list` shows it.
    pub name: String,
    /// Fully qualified host name that clients connect to.
    pub host: String,
    /// Whether it takes Entra tokens.
    pub takes_tokens: bool,
    /// The tenant whose tokens it takes.
    pub tenant_id: Option<Uuid>,
}

/// An Entra administrator of a flexible server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    /// Object id of the Entra principal.
    pub object_id: Uuid,
    /// Name, and that of its role in the database.
    pub name: String,
    /// User, group or service principal.
    pub kind: AdministratorKind,
}

/// What an [`Administrator`] is, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum AdministratorKind {
    User,
    Group,
    ServicePrincipal,
    /// The response does not contain the kind.
    Unknown,
}

impl fmt::Display for AdministratorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServicePrincipal => "ServicePrincipal",
            Self::Unknown => "Unknown",
        })
    }
}

impl FromStr for AdministratorKind {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::User, Self::Group, Self::ServicePrincipal];
        Ok(all.into_iter().find(|kind| kind.to_string() == text).unwrap_or(Self::Unknown))
    }
}

impl ResourceManager {
    /// The flexible server with this name: in the resource group, or the only one in the subscription.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; or several have the name.
    pub async fn server(&self, group: Option<&str>, name: &str) -> Result<FlexibleServer, AzureError> {
        let doing = format!("read the server {name}");
        let document = self.named(SERVERS, group, name, &doing).await?;
        let (text, properties) =
            (|member: &str| document[member].as_str().map(str::to_owned), &document["properties"]);
        let host = properties["fullyQualifiedDomainName"].as_str().map(str::to_owned);
        let authentication = &properties["authConfig"];
        match (text("id"), text("name"), host) {
            (Some(id), Some(name), Some(host)) => Ok(FlexibleServer {
                id,
                name,
                host,
                takes_tokens: authentication["activeDirectoryAuth"] == "Enabled",
                tenant_id: authentication["tenantId"].as_str().and_then(|id| id.parse().ok()),
            }),
            _ => Err(self.client.unusable(&doing, "server")),
        }
    }

    /// The server's Entra administrators.
    ///
    /// # Errors
    /// Why Resource Manager did not show them.
    pub async fn administrators(&self, server: &FlexibleServer) -> Result<Vec<Administrator>, AzureError> {
        let doing = format!("read the administrators of the server {}", server.name);
        let listed =
            self.list(self.url(&format!("{}/administrators", server.id), SERVERS.version), &doing).await?;
        let read = listed.iter().map(|one| read(&one["properties"]));
        read.collect::<Option<_>>()
            .ok_or_else(|| self.client.unusable(&doing, "object id of an administrator"))
    }

    /// Makes a principal an administrator, and waits until the operation is done. `false`: it was one already.
    ///
    /// Not cancel-safe: dropped, it may still become one.
    ///
    /// # Errors
    /// Why Resource Manager refused; or the server does not take tokens.
    pub async fn add_administrator(
        &self,
        server: &FlexibleServer,
        new: &Administrator,
    ) -> Result<bool, AzureError> {
        if !server.takes_tokens {
            let message = format!("the server {} does not take Entra tokens", server.name);
            return Err(AzureError::new(AzureErrorKind::Usage, message).hinting(format!(
                "az postgres flexible-server update --ids {} --microsoft-entra-auth Enabled   (it restarts the server)",
                quote::shell_word(&server.id)
            )));
        }
        if self.administrators(server).await?.contains(new) {
            return Ok(false);
        }
        let doing = format!("make {} an administrator of the server {}", new.name, server.name);
        let properties = json!({
            "principalName": new.name,
            "principalType": new.kind.to_string(),
            "tenantId": server.tenant_id,
        });
        let ask = Ask {
            method: Method::Put,
            url: self.administrator_url(server, new.object_id),
            body: Some(json!({ "properties": properties })),
            only_if: None,
            doing: &doing,
        };
        let began = self.client.send(&ask).await?;
        self.finish(&began, &doing).await?;
        Ok(true)
    }

    /// Removes an administrator, and waits until the operation is done. `false`: it was not an administrator.
    ///
    /// Not cancel-safe: dropped, it may still be taken away.
    ///
    /// # Errors
    /// Why Resource Manager refused; or it is the last administrator, without whom Entra roles could not be managed.
    pub async fn remove_administrator(
        &self,
        server: &FlexibleServer,
        object_id: Uuid,
    ) -> Result<bool, AzureError> {
        let all = self.administrators(server).await?;
        if !all.iter().any(|one| one.object_id == object_id) {
            return Ok(false);
        }
        if all.len() == 1 {
            let message = format!("it is the last Entra administrator of the server {}", server.name);
            return Err(AzureError::new(AzureErrorKind::Usage, message)
                .hinting("add another first: pgentra identity server-admin add"));
        }
        let doing = format!("take the administration of the server {} away", server.name);
        let url = self.administrator_url(server, object_id);
        let ask = Ask { method: Method::Delete, url, body: None, only_if: None, doing: &doing };
        let began = self.client.send(&ask).await?;
        self.finish(&began, &doing).await?;
        Ok(true)
    }

    fn administrator_url(&self, server: &FlexibleServer, object_id: Uuid) -> String {
        self.url(&format!("{}/administrators/{object_id}", server.id), SERVERS.version)
    }
}

fn read(properties: &Value) -> Option<Administrator> {
    let text = |member: &str| properties[member].as_str().unwrap_or_default();
    let Ok(kind) = text("principalType").parse();
    Some(Administrator {
        object_id: text("objectId").parse().ok()?,
        name: text("principalName").to_owned(),
        kind,
    })
}
