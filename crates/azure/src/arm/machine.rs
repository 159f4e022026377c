use pgentra_system::http::Response;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{ResourceManager, ResourceType, segment};
use crate::client::{Ask, Method};
use crate::{AzureError, AzureErrorKind};

/// Virtual machines, and the api-version whose shapes are read here.
const VMS: ResourceType = ResourceType { path: "Microsoft.Compute/virtualMachines", version: "2024-11-01" };

/// User-assigned identities, and their api-version.
const IDENTITIES: ResourceType =
    ResourceType { path: "Microsoft.ManagedIdentity/userAssignedIdentities", version: "2023-01-31" };

/// A virtual machine, as far as its identities go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vm {
    /// Resource id, `/subscriptions/…/virtualMachines/NAME`.
    pub id: String,
    /// Name; also that of its system-assigned identity.
    pub name: String,
    /// Its own identity, if it has one.
    pub system_assigned: Option<SystemAssigned>,
    /// The others that it was given, by resource id.
    pub user_assigned: Vec<UserAssigned>,
    /// The `ETag` of the machine, if the service sent one.
    etag: Option<String>,
}

/// The system-assigned identity, which is created and deleted with its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemAssigned {
    /// Object (principal) id. Its client id is in the tenant alone.
    pub object_id: Uuid,
    /// Id of the tenant that the identity belongs to.
    pub tenant_id: Option<Uuid>,
}

/// An identity that is a resource of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserAssigned {
    /// Resource id, `/subscriptions/…/userAssignedIdentities/NAME`.
    pub id: String,
    /// Name of the resource, and of the service principal.
    pub name: String,
    /// Object (principal) id: what roles of Flexible Server are mapped to.
    pub object_id: Uuid,
    /// Client (application) id: what a program on the machine selects the identity by.
    pub client_id: Uuid,
}

/// An identity that a machine is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The system-assigned identity of the machine.
    SystemAssigned,
    /// This user-assigned identity, beside those that the machine has.
    UserAssigned(UserAssigned),
}

impl Vm {
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

    fn read(document: &Value) -> Option<Self> {
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
        Some(Self {
            id: text("id")?,
            name: text("name")?,
            system_assigned,
            user_assigned,
            etag: text("etag"),
        })
    }
}

impl ResourceManager {
    /// The virtual machine with this name: in the resource group, or the only one in the subscription.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; or several have the name.
    pub async fn vm(&self, group: Option<&str>, name: &str) -> Result<Vm, AzureError> {
        let doing = format!("read the identities of the virtual machine {name}");
        let document = self.named(VMS, group, name, &doing).await?;
        Vm::read(&document).ok_or_else(|| self.client.unusable(&doing, "virtual machine"))
    }

    /// The user-assigned identity with this name or resource id.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; or several have the name.
    pub async fn identity(&self, group: Option<&str>, name_or_id: &str) -> Result<UserAssigned, AzureError> {
        let doing = format!("read the user-assigned identity {name_or_id}");
        let document = if name_or_id.starts_with('/') {
            let parts: Vec<&str> = name_or_id.split('/').skip(1).collect();
            parts.iter().try_for_each(|part| segment(part))?;
            let path = parts.get(4..).unwrap_or_default().join("/").to_ascii_lowercase();
            let ResourceType { path: kind, version } = IDENTITIES;
            if parts.len() != 8 || !path.starts_with(&format!("providers/{kind}/").to_ascii_lowercase()) {
                let message = format!("`{name_or_id}` is not the resource id of a user-assigned identity");
                return Err(AzureError::new(AzureErrorKind::Usage, message)
                    .hinting("find it with: az identity show -g GROUP -n NAME --query id"));
            }
            self.client.json(&Ask::get(self.url(name_or_id, version), &doing)).await?
        } else {
            self.named(IDENTITIES, group, name_or_id, &doing).await?
        };
        let properties = &document["properties"];
        let id = |member: &str| properties[member].as_str().and_then(|id| id.parse().ok());
        let text = |member: &str| document[member].as_str().map(str::to_owned);
        match (text("id"), text("name"), id("principalId"), id("clientId")) {
            (Some(id), Some(name), Some(object_id), Some(client_id)) => {
                Ok(UserAssigned { id, name, object_id, client_id })
            }
            _ => Err(self.client.unusable(&doing, "identity")),
        }
    }

    /// Gives the machine an identity and keeps those that it has; returns it as it is then, when Azure is done.
    ///
    /// Idempotent: what it has already is not asked for. Not cancel-safe: dropped, it may still be assigned.
    ///
    /// # Errors
    /// Why Resource Manager refused; or an identity that it had is gone because another client changed it meanwhile.
    pub async fn assign(&self, vm: &Vm, wanted: &Wanted) -> Result<Vm, AzureError> {
        let group = Some(vm.resource_group());
        let before = self.vm(group, &vm.name).await?;
        if before.has(wanted) {
            return Ok(before);
        }
        let doing = format!("assign an identity to the virtual machine {}", vm.name);
        let ask = Ask {
            method: Method::Patch,
            url: self.url(&before.id, VMS.version),
            body: Some(json!({ "identity": with(&before, wanted) })),
            // The list replaces the old one: without `If-Match`, identities assigned since the read would be removed.
            only_if: before.etag.clone(),
            doing: &doing,
        };
        let began: Response = self.client.send(&ask).await?;
        self.finish(&began, &doing).await?;
        let after = self.vm(group, &vm.name).await?;
        let kept = before.user_assigned.into_iter().map(Wanted::UserAssigned);
        let kept = kept.chain(before.system_assigned.map(|_| Wanted::SystemAssigned)).chain([wanted.clone()]);
        if kept.into_iter().all(|one| after.has(&one)) {
            return Ok(after);
        }
        let message =
            format!("the identities of the virtual machine {} are not what they should be now", vm.name);
        Err(AzureError::new(AzureErrorKind::Conflict, message).hinting(
            "another client changed them meanwhile: look with `pgentra identity show`, then try again",
        ))
    }
}

/// The member `identity` with the present identities and the new one. It must list all of them: Azure removes
/// user-assigned identities that are missing (Microsoft: qs-configure-rest-vm).
fn with(vm: &Vm, wanted: &Wanted) -> Value {
    let mut ids: Map<String, Value> =
        vm.user_assigned.iter().map(|one| (one.id.clone(), json!({}))).collect();
    let mut has_own = vm.system_assigned.is_some();
    match wanted {
        Wanted::SystemAssigned => has_own = true,
        Wanted::UserAssigned(one) => drop(ids.insert(one.id.clone(), json!({}))),
    }
    match (has_own, ids.is_empty()) {
        (_, true) => json!({ "type": "SystemAssigned" }),
        (true, false) => json!({ "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": ids }),
        (false, false) => json!({ "type": "UserAssigned", "userAssignedIdentities": ids }),
    }
}
