//! Built-in roles (Microsoft.Authorization/roleDefinitions), as far as those of identities and servers need them.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{collection, json_answer, refusal};
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};

const KIND: &str = "Microsoft.Authorization/roleDefinitions";

/// Names and ids (Microsoft: built-in-roles).
const ROLES: [(&str, &str); 7] = [
    ("Owner", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"),
    ("Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c"),
    ("Reader", "acdd72a7-3385-48ef-bd42-f606fba81ae7"),
    ("User Access Administrator", "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"),
    ("Managed Identity Contributor", "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59"),
    ("Managed Identity Operator", "f1a07417-d97a-45cb-824c-7a7467783830"),
    ("Virtual Machine Contributor", "9980e02c-c2be-4d73-94e8-173b1dc7cf3c"),
];

/// `GET {scope}/…/roleDefinitions`, with `$filter=roleName eq '…'`.
pub(super) fn list(cloud: &Cloud, call: &Call) -> Result<Answer, Answer> {
    let name = call.query.get("$filter").map(|filter| {
        let name = filter.strip_prefix("roleName eq '").and_then(|rest| rest.strip_suffix('\''));
        name.ok_or_else(|| {
            let message = format!("The filter '{filter}' is not supported.");
            refusal(StatusCode::BAD_REQUEST, "UnsupportedQuery", &message)
        })
    });
    let name = name.transpose()?;
    let found = ROLES.iter().filter(|(role, _)| name.is_none_or(|name| role.eq_ignore_ascii_case(name)));
    Ok(collection(found.map(|role| shown(cloud, *role)).collect()))
}

/// `GET {scope}/…/roleDefinitions/{id}`
pub(super) fn show(cloud: &Cloud, id: &str) -> Result<Answer, Answer> {
    Ok(json_answer(shown(cloud, find(id)?)))
}

/// The name and the id of the role with this id.
pub(super) fn find(id: &str) -> Result<(&'static str, &'static str), Answer> {
    let found = ROLES.into_iter().find(|(_, role)| role.eq_ignore_ascii_case(id));
    found.ok_or_else(|| {
        let message = format!("The specified role definition with ID '{id}' does not exist.");
        refusal(StatusCode::NOT_FOUND, "RoleDefinitionDoesNotExist", &message)
    })
}

/// Without the permissions, which are long and of no effect here.
fn shown(cloud: &Cloud, (name, id): (&str, &str)) -> Value {
    let subscription = cloud.directory.ids.subscription;
    json!({
        "id": format!("/subscriptions/{subscription}/providers/{KIND}/{id}"),
        "name": id,
        "type": KIND,
        "properties": { "roleName": name, "type": "BuiltInRole", "assignableScopes": ["/"], "permissions": [] },
    })
}
