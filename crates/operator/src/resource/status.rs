//! What the operator says of a resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator found and did. It is written as a merge patch, in which a key with null is removed: no key is left out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PostgresRolesStatus {
    /// The generation of the resource that this status is about.
    pub(crate) observed_generation: Option<i64>,

    /// The server: hosts and ports.
    pub(crate) server: Option<String>,

    /// PostgreSQL's number for the server, if its role may read it: the same under every host name.
    pub(crate) system_identifier: Option<String>,

    /// Differences between the server and the resource that are left.
    pub(crate) changes: Option<i64>,

    /// The differences that are left, as `pgentra role plan` prints them; at most 100 of them.
    #[serde(default)]
    pub(crate) plan: Vec<String>,

    /// The roles of the server that are this resource's. No other resource may name them.
    #[serde(default)]
    pub(crate) roles: Vec<RoleStatus>,

    /// Ready: the server is as the resource says. Planned: the server and the resource were compared.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub(crate) conditions: Vec<Condition>,

    /// When the server was last compared with the resource.
    pub(crate) last_checked: Option<Time>,

    /// When the server was last changed.
    pub(crate) last_changed: Option<Time>,
}

/// A role of the resource.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoleStatus {
    /// Its name on the server.
    pub(crate) name: String,
    /// Whether the operator has made it for this resource. Only such a role is ever dropped.
    pub(crate) created: bool,
    /// PostgreSQL's number for the role that the operator has made. Another role that has the name now has another number,
    /// and is not dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oid: Option<i64>,
}

impl RoleStatus {
    /// A role that the operator has not made.
    pub(crate) fn found(name: &str) -> Self {
        Self { name: name.to_owned(), created: false, oid: None }
    }

    /// The number of the role that the operator has made.
    pub(crate) fn made(&self) -> Option<u32> {
        self.oid.filter(|_| self.created).and_then(|oid| u32::try_from(oid).ok())
    }
}
