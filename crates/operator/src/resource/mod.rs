//! The resource `PostgresRoles`: its schema in the API server is made of these types.

mod document;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use document::{RoleSpec, SchemaSpec};
pub(crate) use status::{PostgresRolesStatus, RoleStatus};

/// Roles of a PostgreSQL server. The keys `role` and `schema` are those of the file that `pgentra role apply` reads.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug)]
#[kube(
    group = "pgentra.dev",
    version = "v1alpha1",
    kind = "PostgresRoles",
    plural = "postgresroles",
    singular = "postgresroles",
    namespaced,
    status = "PostgresRolesStatus",
    doc = "Roles of a PostgreSQL server: who may sign in with which Microsoft Entra identity, and what each role may do.",
    printcolumn = r#"{"name":"Server","type":"string","jsonPath":".status.server"}"#,
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".spec.policy"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Changes","type":"integer","jsonPath":".status.changes"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("self.server == oldSelf.server").message("server cannot be changed: make another resource for another server"),
    validation = Rule::new("self.role.size() + self.schema.size() > 0").message("name a role or a schema")
)]
pub(crate) struct PostgresRolesSpec {
    /// The server and the role that signs in, as a connection string of libpq:
    /// postgresql://OPERATOR@HOST/DATABASE. Its database is meant where a grant names none.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("!self.matches('(?i)(^|[ ?&])password *=') && !self.matches('^[a-z]+://[^/@]*:[^/@]*@')").message("no password: the operator signs in with a token"))]
    pub(crate) server: String,

    /// apply: the server is changed until it is as this resource says. plan: what would be changed is in the status.
    #[serde(default)]
    pub(crate) policy: RolesPolicy,

    /// How often the server is compared with this resource, such as 30s, 5m or 1h. At least 10s, at most 24h.
    #[serde(default = "interval")]
    #[schemars(length(max = 8), pattern("^[0-9]+(s|m|h)$"))]
    #[x_kube(validation = Rule::new("!self.matches('^[0-9]+(s|m|h)$') || (duration(self) >= duration('10s') && duration(self) <= duration('24h'))").message("at least 10s, at most 24h"))]
    pub(crate) interval: String,

    /// What becomes of the roles that the operator has made when this resource is deleted, or does not name them any more.
    /// keep: they stay as they are. drop: they are dropped, with their privileges.
    #[serde(default)]
    pub(crate) deletion: Deletion,

    /// The roles.
    #[serde(default)]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub(crate) role: Vec<RoleSpec>,

    /// Schemas with their usual roles.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub(crate) schema: Vec<SchemaSpec>,
}

fn interval() -> String {
    "5m".to_owned()
}

/// Whether the server is changed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RolesPolicy {
    #[default]
    Apply,
    Plan,
}

/// What becomes of roles that the resource does not name any more.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Deletion {
    #[default]
    Keep,
    Drop,
}

impl PostgresRolesSpec {
    /// The document that `pgentra role apply` reads, as JSON.
    pub(crate) fn document(&self) -> Map<String, Value> {
        // Texts, flags and lists: they are JSON.
        let list = |list: Result<Value, serde_json::Error>| list.unwrap_or_default();
        Map::from_iter([
            ("role".to_owned(), list(serde_json::to_value(&self.role))),
            ("schema".to_owned(), list(serde_json::to_value(&self.schema))),
        ])
    }
}

#[cfg(test)]
mod tests;
