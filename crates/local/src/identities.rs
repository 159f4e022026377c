//! The identities of the local tenant.

use pgentra_emulator::{Identity, LocalAzure};
use serde::{Deserialize, Serialize};

/// An identity of the local tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// The display name.
    pub name: String,
    /// `system-assigned`, `user-assigned`, `application` or `user`.
    pub kind: String,
    /// Application id; a user has none.
    pub client_id: Option<String>,
    /// The object id of its principal.
    pub object_id: String,
    /// Resource Manager id; only a user-assigned identity has one of its own.
    pub resource_id: Option<String>,
    /// The database role mapped to it.
    pub role: String,
}

/// The identities that a program on a host can have.
pub(crate) fn identities(azure: &LocalAzure) -> Vec<IdentityStatus> {
    let managed = |kind: &str, identity: &Identity| IdentityStatus {
        name: identity.name().to_owned(),
        kind: kind.to_owned(),
        client_id: Some(identity.client_id().to_string()),
        object_id: identity.object_id().to_string(),
        resource_id: (kind == "user-assigned").then(|| identity.resource_id().to_owned()),
        role: identity.name().to_owned(),
    };
    let administrator = azure.administrator();
    let application = azure.application();
    vec![
        managed("system-assigned", azure.vm()),
        managed("user-assigned", azure.user_assigned()),
        IdentityStatus {
            name: application.name().to_owned(),
            kind: "application".to_owned(),
            client_id: Some(application.client_id().to_string()),
            object_id: application.object_id().to_string(),
            resource_id: None,
            role: application.name().to_owned(),
        },
        IdentityStatus {
            name: administrator.name().to_owned(),
            kind: "user".to_owned(),
            client_id: None,
            object_id: administrator.object_id().to_string(),
            resource_id: None,
            role: administrator.user_principal_name().to_owned(),
        },
    ]
}
