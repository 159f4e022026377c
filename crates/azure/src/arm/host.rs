use std::fmt;

use pgentra_system::http::Response;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::identity::UserAssigned;
use super::{ResourceManager, ResourceType};
use crate::client::{Ask, Method};
use crate::{AzureError, AzureErrorKind};

/// A type of resource that has identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AzureHostType {
    /// A virtual machine.
    VirtualMachine,
    /// A virtual machine scale set.
    ScaleSet,
    /// A web app of App Service.
    WebApp,
    /// A function app.
    FunctionApp,
    /// A container app.
    ContainerApp,
    /// A server that Azure Arc connects. Its agent makes its identity, and it takes no other.
    ArcServer,
}

/// A resource with identities, as far as those go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AzureHost {
    /// What it is.
    pub kind: AzureHostType,
    /// Resource id, such as `/subscriptions/…/virtualMachines/NAME`.
    pub id: String,
    /// Name; also that of its system-assigned identity.
    pub name: String,
    /// Its own identity, if it has one.
    pub system_assigned: Option<SystemAssigned>,
    /// The others that it was given, by resource id.
    pub user_assigned: Vec<UserAssigned>,
    /// Whether its instances are updated by hand: an identity reaches them with the next update. Of scale sets alone.
    pub is_updated_by_hand: bool,
    /// The `ETag` of the resource, if the service sent one.
    etag: Option<String>,
}

/// The system-assigned identity, which is created and deleted with its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemAssigned {
    /// Object (principal) id. Its client id is in the tenant alone.
    pub object_id: Uuid,
    /// Id of the tenant that the identity belongs to.
    pub tenant_id: Option<Uuid>,
}

/// An identity that a host is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The system-assigned identity of the host.
    SystemAssigned,
    /// This user-assigned identity, beside those that the host has.
    UserAssigned(UserAssigned),
}

impl AzureHostType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::VirtualMachine,
        Self::ScaleSet,
        Self::WebApp,
        Self::FunctionApp,
        Self::ContainerApp,
        Self::ArcServer,
    ];

    /// The type in paths, and the api-version whose documents are read here.
    fn resource_type(self) -> ResourceType {
        let (path, version) = match self {
            Self::VirtualMachine => ("Microsoft.Compute/virtualMachines", "2024-11-01"),
            Self::ScaleSet => ("Microsoft.Compute/virtualMachineScaleSets", "2024-11-01"),
            Self::WebApp | Self::FunctionApp => ("Microsoft.Web/sites", "2024-11-01"),
            Self::ContainerApp => ("Microsoft.App/containerApps", "2025-01-01"),
            Self::ArcServer => ("Microsoft.HybridCompute/machines", "2024-07-10"),
        };
        ResourceType { path, version }
    }
}

impl fmt::Display for AzureHostType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::VirtualMachine => "virtual machine",
            Self::ScaleSet => "scale set",
            Self::WebApp => "web app",
            Self::FunctionApp => "function app",
            Self::ContainerApp => "container app",
            Self::ArcServer => "Arc server",
        })
    }
}

impl AzureHost {
    /// Whether it has this identity.
    pub fn has(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::SystemAssigned => self.system_assigned.is_some(),
            Wanted::UserAssigned(one) => {
                self.user_assigned.iter().any(|other| other.id.eq_ignore_ascii_case(&one.id))
            }
        }
    }

    /// The resource group that it is in.
    pub fn resource_group(&self) -> &str {
        self.id.split('/').nth(4).unwrap_or_default()
    }

    fn read(kind: AzureHostType, document: &Value) -> Option<Self> {
        let text = |member: &str| document[member].as_str().map(str::to_owned);
        let identity = &document["identity"];
        let id = |member: &Value| member.as_str().and_then(|id| id.parse::<Uuid>().ok());
        let mut user_assigned = Vec::new();
        for (resource_id, one) in identity["userAssignedIdentities"].as_object().into_iter().flatten() {
            let name = resource_id.rsplit('/').next().unwrap_or_default().to_owned();
            let (object_id, client_id) = (id(&one["principalId"])?, id(&one["clientId"])?);
            user_assigned.push(UserAssigned { id: resource_id.clone(), name, object_id, client_id });
        }
        let system_assigned = id(&identity["principalId"])
            .map(|object_id| SystemAssigned { object_id, tenant_id: id(&identity["tenantId"]) });
        let is_updated_by_hand =
            kind == AzureHostType::ScaleSet && document["properties"]["upgradePolicy"]["mode"] == "Manual";
        Some(Self {
            kind,
            id: text("id")?,
            name: text("name")?,
            system_assigned,
            user_assigned,
            is_updated_by_hand,
            etag: text("etag"),
        })
    }

    /// How messages name it.
    fn called(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// The member `identity` of a request that makes `system_assigned` and `user_assigned` all of its identities. It must
    /// list all of them: Azure removes user-assigned identities that are missing (Microsoft: qs-configure-rest-vm).
    fn member(system_assigned: bool, ids: Map<String, Value>) -> Value {
        let is_any = ids.values().any(|value| !value.is_null());
        let kind = match (system_assigned, is_any) {
            (true, true) => "SystemAssigned, UserAssigned",
            (true, false) => "SystemAssigned",
            (false, true) => "UserAssigned",
            (false, false) => "None",
        };
        match is_any {
            true => json!({ "type": kind, "userAssignedIdentities": ids }),
            false => json!({ "type": kind }),
        }
    }
}

impl ResourceManager {
    /// The resource of this type with this name: in the resource group, or the only one in the subscription.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; several have the name; or the app is of the other kind.
    pub async fn host(
        &self,
        kind: AzureHostType,
        group: Option<&str>,
        name: &str,
    ) -> Result<AzureHost, AzureError> {
        let doing = format!("read the identities of the {kind} {name}");
        let document = self.named(kind.resource_type(), group, name, &doing).await?;
        let app = document["kind"].as_str().unwrap_or_default().to_ascii_lowercase();
        let other = match (kind, app.contains("functionapp")) {
            (AzureHostType::WebApp, true) => Some(("a function app", "functionapp")),
            (AzureHostType::FunctionApp, false) => Some(("a web app", "webapp")),
            _ => None,
        };
        if let Some((what, word)) = other {
            let message = format!("cannot {doing}: it is {what}");
            return Err(
                AzureError::new(AzureErrorKind::Usage, message).hinting(format!("name it {word}/{name}"))
            );
        }
        AzureHost::read(kind, &document).ok_or_else(|| self.client.unusable(&doing, "name or id"))
    }

    /// Gives the host an identity and keeps those that it has; returns it as it is then, when Azure is done.
    ///
    /// Idempotent: what it has already is not asked for. Not cancel-safe: dropped, it may still be assigned.
    ///
    /// # Errors
    /// Why Resource Manager refused; an identity that it had is gone because another client changed it meanwhile; or the
    /// host takes no identity.
    pub async fn assign(&self, host: &AzureHost, wanted: &Wanted) -> Result<AzureHost, AzureError> {
        let before = self.host(host.kind, Some(host.resource_group()), &host.name).await?;
        if before.has(wanted) {
            return Ok(before);
        }
        let doing = format!("assign an identity to the {}", host.called());
        if host.kind == AzureHostType::ArcServer {
            let message = match wanted {
                Wanted::SystemAssigned => format!("cannot {doing}: its agent makes it"),
                Wanted::UserAssigned(_) => format!("cannot {doing}: it has the identity of its agent alone"),
            };
            return Err(AzureError::new(AzureErrorKind::Usage, message)
                .hinting("connect the server anew, which makes its identity: azcmagent connect"));
        }
        let mut ids = before.ids();
        if let Wanted::UserAssigned(one) = wanted {
            ids.insert(one.id.clone(), json!({}));
        }
        let own = before.system_assigned.is_some() || *wanted == Wanted::SystemAssigned;
        let after = self.set(&before, AzureHost::member(own, ids), &doing).await?;
        let kept = before.user_assigned.iter().cloned().map(Wanted::UserAssigned);
        let kept = kept.chain(before.system_assigned.map(|_| Wanted::SystemAssigned)).chain([wanted.clone()]);
        if kept.into_iter().all(|one| after.has(&one)) {
            return Ok(after);
        }
        Err(changed_meanwhile(&after))
    }

    /// Takes an identity away from the host and keeps its others; returns it as it is then, when Azure is done. A
    /// system-assigned identity is deleted by this; a user-assigned one stays a resource of its own.
    ///
    /// Idempotent, and not cancel-safe, as [`ResourceManager::assign`].
    ///
    /// # Errors
    /// Why Resource Manager refused; or another client changed the identities meanwhile.
    pub async fn unassign(&self, host: &AzureHost, unwanted: &Wanted) -> Result<AzureHost, AzureError> {
        let before = self.host(host.kind, Some(host.resource_group()), &host.name).await?;
        if !before.has(unwanted) {
            return Ok(before);
        }
        let doing = format!("take an identity away from the {}", host.called());
        if host.kind == AzureHostType::ArcServer {
            let message = format!("cannot {doing}: it belongs to its agent");
            return Err(AzureError::new(AzureErrorKind::Usage, message)
                .hinting("azcmagent disconnect, on the server, deletes it"));
        }
        let mut ids = before.ids();
        let own = before.system_assigned.is_some() && *unwanted != Wanted::SystemAssigned;
        if let Wanted::UserAssigned(one) = unwanted {
            // In a patch an identity that is missing may stay; one that is null goes.
            ids.iter_mut().filter(|(id, _)| id.eq_ignore_ascii_case(&one.id)).for_each(|(_, value)| {
                *value = Value::Null;
            });
        }
        let after = self.set(&before, AzureHost::member(own, ids), &doing).await?;
        if after.has(unwanted) { Err(changed_meanwhile(&after)) } else { Ok(after) }
    }

    async fn set(&self, before: &AzureHost, identity: Value, doing: &str) -> Result<AzureHost, AzureError> {
        let ask = Ask {
            method: Method::Patch,
            url: self.url(&before.id, before.kind.resource_type().version),
            body: Some(json!({ "identity": identity })),
            // The list replaces the old one: without `If-Match`, identities assigned since the read would be removed.
            only_if: before.etag.clone(),
            doing,
        };
        let began: Response = self.client.send(&ask).await?;
        self.finish(&began, doing).await?;
        self.host(before.kind, Some(before.resource_group()), &before.name).await
    }
}

impl AzureHost {
    /// Its user-assigned identities, as a request lists them.
    fn ids(&self) -> Map<String, Value> {
        self.user_assigned.iter().map(|one| (one.id.clone(), json!({}))).collect()
    }
}

fn changed_meanwhile(host: &AzureHost) -> AzureError {
    let message = format!("the identities of the {} are not what they should be now", host.called());
    AzureError::new(AzureErrorKind::Conflict, message)
        .hinting("another client changed them meanwhile: look with `pgentra identity show`, then try again")
}
