//! Roles of principals in the subscription (Microsoft.Authorization/roleAssignments).

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answers::{body, collection, refusal, with_status};
use super::subscriptions;
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};
use crate::subscription::RoleAssignment;

const KIND: &str = "Microsoft.Authorization/roleAssignments";

/// `GET …/roleAssignments`, of one principal with `$filter=principalId eq '…'`.
pub(super) fn list(cloud: &Cloud, call: &Call) -> Result<Answer, Answer> {
    let principal = call.query.get("$filter").map(|filter| {
        let id = filter.strip_prefix("principalId eq '").and_then(|rest| rest.strip_suffix('\''));
        id.and_then(|id| Uuid::parse_str(id).ok()).ok_or_else(|| {
            let message = format!("The filter '{filter}' is not supported.");
            refusal(StatusCode::BAD_REQUEST, "UnsupportedQuery", &message)
        })
    });
    let principal = principal.transpose()?;
    let all = cloud.subscription.role_assignments().into_iter();
    let all = all.filter(|one| principal.is_none_or(|principal| principal == one.principal));
    Ok(collection(all.map(|one| shown(cloud, &one)).collect()))
}

/// `PUT …/roleAssignments/{name}`, at the subscription. The role gives no rights here.
pub(super) fn create(cloud: &Cloud, call: &Call, name: &str) -> Result<Answer, Answer> {
    let body = body(call)?;
    let invalid = |what: &str| {
        refusal(
            StatusCode::BAD_REQUEST,
            "InvalidRequestContent",
            &format!("The request content has no {what}."),
        )
    };
    let id = |text: Option<&str>| text.and_then(|text| Uuid::parse_str(text).ok());
    let name = id(Some(name)).ok_or_else(|| invalid("GUID as its name"))?;
    let properties = &body["properties"];
    let principal = id(properties["principalId"].as_str()).ok_or_else(|| invalid("principalId"))?;
    let definition = properties["roleDefinitionId"].as_str().ok_or_else(|| invalid("roleDefinitionId"))?;
    let new = RoleAssignment { name, principal, definition: definition.to_owned() };
    let answer = shown(cloud, &new);
    cloud.subscription.add_role_assignment(new).map_err(|_| subscriptions::full())?;
    Ok(with_status(StatusCode::CREATED, answer))
}

fn shown(cloud: &Cloud, one: &RoleAssignment) -> Value {
    let scope = format!("/subscriptions/{}", cloud.directory.ids.subscription);
    json!({
        "id": format!("{scope}/providers/{KIND}/{}", one.name),
        "name": one.name,
        "type": KIND,
        "properties": {
            "scope": scope,
            "principalId": one.principal,
            "principalType": "ServicePrincipal",
            "roleDefinitionId": one.definition,
        },
    })
}
