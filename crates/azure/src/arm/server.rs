use std::fmt;
use std::str::FromStr;

use pgentra_connect::quote;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ResourceManager, ResourceType};
use crate::client::{Ask, Method};
use crate::{AzureError, AzureErrorKind};

/// The method of a HorizonDB cluster that takes tokens, below the cluster.
const HORIZON_DB_ENTRA: &str = "authentications/microsoftEntra";

/// A type of database server that has Entra administrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AzureServerType {
    /// A flexible server of Azure Database for PostgreSQL. An elastic cluster is one too, with several nodes.
    FlexibleServer,
    /// A cluster of Azure HorizonDB, which is in preview.
    HorizonDb,
}

/// A database server in Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AzureServer {
    /// What it is.
    pub kind: AzureServerType,
    /// Resource id, `/subscriptions/…/flexibleServers/NAME`.
    pub id: String,
    /// Name of the resource, as `az postgres flexible-server list` shows it.
    pub name: String,
    /// Fully qualified host name that clients connect to for reading and writing.
    pub host: String,
    /// Whether it takes Entra tokens.
    pub takes_tokens: bool,
    /// The tenant whose tokens it takes. A HorizonDB cluster does not say; it is the subscription's.
    pub tenant_id: Option<Uuid>,
}

/// An Entra administrator of a database server.
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

impl AzureServerType {
    /// The type in paths, and the api-version whose documents are read here: the newest stable one, or where there is
    /// none the newest preview.
    fn resource_type(self) -> ResourceType {
        let (path, version) = match self {
            Self::FlexibleServer => ("Microsoft.DBforPostgreSQL/flexibleServers", "2025-08-01"),
            Self::HorizonDb => ("Microsoft.HorizonDb/clusters", "2026-10-01-preview"),
        };
        ResourceType { path, version }
    }

    /// What the administrators are called below the server.
    fn administrators(self) -> &'static str {
        match self {
            Self::FlexibleServer => "administrators",
            // Up to 2026-05-01-preview they were `administrators` too.
            Self::HorizonDb => "microsoftEntraAdministrators",
        }
    }
}

impl fmt::Display for AzureServerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FlexibleServer => "flexible server",
            Self::HorizonDb => "HorizonDB cluster",
        })
    }
}

impl ResourceManager {
    /// The server of this type with this name: in the resource group, or the only one in the subscription.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; or several have the name.
    pub async fn server(
        &self,
        kind: AzureServerType,
        group: Option<&str>,
        name: &str,
    ) -> Result<AzureServer, AzureError> {
        let doing = format!("read the {kind} {name}");
        let document = self.named(kind.resource_type(), group, name, &doing).await?;
        let text = |member: &str| document[member].as_str().map(str::to_owned);
        let (Some(id), Some(name)) = (text("id"), text("name")) else {
            return Err(self.client.unusable(&doing, "server"));
        };
        let properties = &document["properties"];
        let (host, takes_tokens, tenant_id) = match kind {
            AzureServerType::FlexibleServer => {
                let host = properties["fullyQualifiedDomainName"].as_str().map(str::to_owned);
                let authentication = &properties["authConfig"];
                let tenant_id = authentication["tenantId"].as_str().and_then(|id| id.parse().ok());
                (host, authentication["activeDirectoryAuth"] == "Enabled", tenant_id)
            }
            AzureServerType::HorizonDb => {
                let host = self.read_write_host(&id, &doing).await?;
                let method = self.json(&format!("{id}/{HORIZON_DB_ENTRA}"), kind, &doing).await?;
                (host, method["properties"]["state"] == "Enabled", None)
            }
        };
        match host {
            Some(host) => Ok(AzureServer { kind, id, name, host, takes_tokens, tenant_id }),
            None => Err(self.client.unusable(&doing, "host name")),
        }
    }

    /// The host of the endpoint of a HorizonDB cluster that reads and writes. The others are those of its pools.
    async fn read_write_host(&self, id: &str, doing: &str) -> Result<Option<String>, AzureError> {
        let kind = AzureServerType::HorizonDb;
        let url = self.url(&format!("{id}/endpoints"), kind.resource_type().version);
        let all = self.list(url, doing).await?;
        let mut properties = all.iter().map(|one| &one["properties"]);
        let found = properties.find(|one| one["scope"] == "Cluster" && one["role"] == "ReadWrite");
        Ok(found.and_then(|one| one["fullyQualifiedDomainName"].as_str()).map(str::to_owned))
    }

    async fn json(&self, id: &str, kind: AzureServerType, doing: &str) -> Result<Value, AzureError> {
        self.client.json(&Ask::get(self.url(id, kind.resource_type().version), doing)).await
    }

    /// The server's Entra administrators.
    ///
    /// # Errors
    /// Why Resource Manager did not show them.
    pub async fn administrators(&self, server: &AzureServer) -> Result<Vec<Administrator>, AzureError> {
        let doing = format!("read the administrators of the server {}", server.name);
        let url = self.url(&administrators(server), server.kind.resource_type().version);
        let listed = self.list(url, &doing).await?;
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
        server: &AzureServer,
        new: &Administrator,
    ) -> Result<bool, AzureError> {
        if !server.takes_tokens {
            let message = format!("the server {} does not take Entra tokens", server.name);
            return Err(AzureError::new(AzureErrorKind::Usage, message).hinting(server.how_to_take_tokens()));
        }
        if self.administrators(server).await?.contains(new) {
            return Ok(false);
        }
        let doing = format!("make {} an administrator of the server {}", new.name, server.name);
        let mut properties = json!({
            "principalName": new.name,
            "principalType": new.kind.to_string(),
        });
        if let Some(tenant_id) = server.tenant_id {
            properties["tenantId"] = json!(tenant_id);
        }
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
        server: &AzureServer,
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

    fn administrator_url(&self, server: &AzureServer, object_id: Uuid) -> String {
        let id = format!("{}/{object_id}", administrators(server));
        self.url(&id, server.kind.resource_type().version)
    }
}

impl AzureServer {
    /// The command after which it takes tokens.
    fn how_to_take_tokens(&self) -> String {
        match self.kind {
            AzureServerType::FlexibleServer => format!(
                "az postgres flexible-server update --ids {} --microsoft-entra-auth Enabled   (it restarts the server)",
                quote::shell_word(&self.id)
            ),
            AzureServerType::HorizonDb => {
                let version = self.kind.resource_type().version;
                let method = format!("{}/{HORIZON_DB_ENTRA}?api-version={version}", self.id);
                format!(
                    "az rest --method patch --url {} --body {}",
                    quote::shell_word(&method),
                    quote::shell_word(&json!({ "properties": { "state": "Enabled" } }).to_string())
                )
            }
        }
    }
}

/// The path of the administrators.
fn administrators(server: &AzureServer) -> String {
    format!("{}/{}", server.id, server.kind.administrators())
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
