//! The document of roles, for the schema. What the keys mean is decided by `pgentra_roles` alone.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A role.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug)]
#[x_kube(
    validation = Rule::new("!has(self.object_id) || !has(self.client_id)").message("a role has an object_id or a client_id, not both"),
    validation = Rule::new("!has(self.client_id) || !has(self.kind) || self.kind == 'service'").message("only a service has a client_id; a user or a group has an object_id"),
    validation = Rule::new("!has(self.login) || self.login || !(has(self.kind) || has(self.object_id) || has(self.client_id) || has(self.admin) || has(self.mfa))").message("a role with login: false is mapped to no principal: it has no kind, object_id, client_id, admin or mfa"),
    validation = Rule::new("!has(self.mfa) || !self.mfa || (has(self.kind) && self.kind != 'service')").message("mfa is for users and groups: a service has no second factor")
)]
pub(crate) struct RoleSpec {
    /// Its name on the server.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!self.startsWith('pg_') && !self.startsWith('azure_') && !(self in ['public', 'none', 'azuresu', 'replication'])").message("a role of the server itself"))]
    name: String,

    /// false: a group role, which is mapped to no principal. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<bool>,

    /// What the principal is. Default: service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["service", "user", "group"]))]
    kind: Option<String>,

    /// The object id of the principal. Without it and without client_id the server looks the role's name up in the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(pattern("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    object_id: Option<String>,

    /// The client id of a service, on Single Server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(pattern("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    client_id: Option<String>,

    /// Whether it administers the server's Entra roles. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<bool>,

    /// Whether its tokens must tell of a second factor. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    mfa: Option<bool>,

    /// The roles that it is a member of: names, or objects with role, inherit, set and admin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "memberships")]
    member_of: Vec<Value>,

    /// What it owns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    own: Vec<OwnSpec>,

    /// Its privileges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    grant: Vec<GrantSpec>,

    /// Its privileges on objects that are made later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    default: Vec<DefaultSpec>,
}

/// What a role owns: a database, a schema, or every object of a schema.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug)]
#[x_kube(
    validation = Rule::new("!has(self.objects) || has(self.schema)").message("own with objects names their schema")
)]
pub(crate) struct OwnSpec {
    /// Default: the database of the connection string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    database: Option<String>,

    /// A schema, without what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    schema: Option<String>,

    /// "*": every object of the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["*"]))]
    objects: Option<String>,
}

/// Privileges on a database, a schema, or objects of a schema.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug)]
#[x_kube(
    validation = Rule::new("(has(self.tables) ? 1 : 0) + (has(self.sequences) ? 1 : 0) + (has(self.functions) ? 1 : 0) + (has(self.types) ? 1 : 0) <= 1").message("a grant is on tables, sequences, functions or types; write one for each"),
    validation = Rule::new("has(self.schema) || !(has(self.tables) || has(self.sequences) || has(self.functions) || has(self.types))").message("a grant on tables, sequences, functions or types names their schema")
)]
pub(crate) struct GrantSpec {
    /// Default: the database of the connection string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    database: Option<String>,

    /// A schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    schema: Option<String>,

    /// Tables of the schema, or "*" for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    tables: Option<Vec<String>>,

    /// Sequences of the schema, or "*" for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    sequences: Option<Vec<String>>,

    /// Functions of the schema, or "*" for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    functions: Option<Vec<String>>,

    /// Types of the schema, or "*" for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    types: Option<Vec<String>>,

    /// Such as SELECT, or ALL.
    #[schemars(schema_with = "privileges")]
    privileges: Vec<String>,
}

/// Privileges on objects that are made later.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug)]
pub(crate) struct DefaultSpec {
    /// Default: the database of the connection string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    database: Option<String>,

    /// Default: every schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    schema: Option<String>,

    /// The roles that make the objects. Default: the role that signs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    owner: Option<Vec<String>>,

    /// What is made.
    #[schemars(extend("enum" = ["tables", "sequences", "functions", "types"]))]
    on: String,

    /// Such as SELECT, or ALL.
    #[schemars(schema_with = "privileges")]
    privileges: Vec<String>,
}

/// A schema with its usual roles.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug)]
#[x_kube(
    validation = Rule::new("has(self.owner) || has(self.read_write) || has(self.read_only)").message("a schema has an owner, a read_write or a read_only role")
)]
pub(crate) struct SchemaSpec {
    /// Default: the database of the connection string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    database: Option<String>,

    /// The schema, which must exist.
    #[schemars(length(min = 1, max = 63))]
    name: String,

    /// The group role that owns the schema and its objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    owner: Option<String>,

    /// The group role that reads and writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    read_write: Option<String>,

    /// The group role that reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    read_only: Option<String>,

    /// Further roles that make objects in the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    creators: Option<Vec<String>>,
}

/// A list of names. An argument list makes the name of a function longer.
fn names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": { "type": "string", "minLength": 1, "maxLength": 1000 },
    })
}

fn privileges(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 20,
        "items": {
            "type": "string",
            "maxLength": 20,
            "pattern": "^(?i:ALL|CONNECT|CREATE|TEMPORARY|TEMP|USAGE|SELECT|INSERT|UPDATE|DELETE|TRUNCATE|REFERENCES|TRIGGER|MAINTAIN|EXECUTE)$",
        },
    })
}

/// A schema of the API server gives a value one type. An item is a text or an object, so it has none: the operator reads it.
fn memberships(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 100,
        "items": { "x-kubernetes-preserve-unknown-fields": true },
    })
}
