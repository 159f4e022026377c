//! Roles of principals in the subscription (Microsoft.Authorization/roleAssignments). They give no rights here.

use hyper::StatusCode;
use pgentra_directory::PrincipalKind;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answers::{body, collection, json_answer, refusal, with_status};
use super::{role_definitions, subscriptions};
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};
use crate::subscription::RoleAssignment;

const KIND: &str = "Microsoft.Authorization/roleAssignments";

/// The most characters of a scope and of a role's id; ids of resources are at most this long.
const LONGEST: usize = 1024;

/// Which assignments a list has, beside its scope.
#[derive(Default)]
struct AssignmentFilter {
    principal: Option<Uuid>,
    /// None for what is inside of the scope.
    at_scope: bool,
}

/// `GET {scope}/…/roleAssignments`: at the scope, above it and inside of it.
pub(super) fn list(cloud: &Cloud, call: &Call, scope: &str) -> Result<Answer, Answer> {
    let wanted = wanted(call.query.get("$filter").unwrap_or_default())?;
    let all = cloud.subscription.role_assignments().into_iter();
    let all = all.filter(|one| {
        let is_above = is_within(scope, &one.scope);
        (is_above || !wanted.at_scope && is_within(&one.scope, scope))
            && wanted.principal.is_none_or(|principal| principal == one.principal)
    });
    Ok(collection(all.map(|one| shown(&one)).collect()))
}

/// Conditions with `and` between them.
fn wanted(filter: &str) -> Result<AssignmentFilter, Answer> {
    let mut wanted = AssignmentFilter::default();
    for condition in filter.split(" and ").map(str::trim).filter(|text| !text.is_empty()) {
        let of_principal = ["principalId eq '", "assignedTo('", "principalId eq "];
        let id = of_principal.iter().find_map(|start| condition.strip_prefix(start));
        let id = id.and_then(|rest| Uuid::parse_str(rest.trim_end_matches(['\'', ')'])).ok());
        match id {
            Some(id) => wanted.principal = Some(id),
            None if condition == "atScope()" => wanted.at_scope = true,
            None => {
                let message = format!("The filter '{filter}' is not supported.");
                return Err(refusal(StatusCode::BAD_REQUEST, "UnsupportedQuery", &message));
            }
        }
    }
    Ok(wanted)
}

/// Whether a resource is another one or inside of it.
fn is_within(resource: &str, other: &str) -> bool {
    let start = resource.get(..other.len()).is_some_and(|start| start.eq_ignore_ascii_case(other));
    start && matches!(resource.as_bytes().get(other.len()), None | Some(b'/'))
}

/// `GET {scope}/…/roleAssignments/{name}`
pub(super) fn show(cloud: &Cloud, scope: &str, name: &str) -> Result<Answer, Answer> {
    let found = find(cloud, scope, name).ok_or_else(|| {
        let message = format!("The role assignment '{name}' is not found.");
        refusal(StatusCode::NOT_FOUND, "RoleAssignmentNotFound", &message)
    })?;
    Ok(json_answer(shown(&found)))
}

/// `DELETE {scope}/…/roleAssignments/{name}`
pub(super) fn delete(cloud: &Cloud, scope: &str, name: &str) -> Result<Answer, Answer> {
    let Some(found) = find(cloud, scope, name) else {
        return Ok(Answer::text(StatusCode::NO_CONTENT, ""));
    };
    cloud.subscription.remove_role_assignment(found.name);
    Ok(json_answer(shown(&found)))
}

fn find(cloud: &Cloud, scope: &str, name: &str) -> Option<RoleAssignment> {
    let name = Uuid::parse_str(name).ok()?;
    let mut all = cloud.subscription.role_assignments().into_iter();
    all.find(|one| one.name == name && one.scope.eq_ignore_ascii_case(scope))
}

/// `PUT {scope}/…/roleAssignments/{name}`
pub(super) fn create(cloud: &Cloud, call: &Call, scope: &str, name: &str) -> Result<Answer, Answer> {
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
    let definition = properties["roleDefinitionId"].as_str().filter(|id| id.len() <= LONGEST);
    let definition = definition.ok_or_else(|| invalid("roleDefinitionId"))?;
    if scope.len() > LONGEST {
        return Err(invalid("scope of at most 1024 characters"));
    }
    role_definitions::find(definition.rsplit('/').next().unwrap_or_default())?;
    let kind = kind_of(cloud, principal, properties["principalType"].as_str())?;
    let same = |one: &RoleAssignment| {
        one.principal == principal
            && one.definition.eq_ignore_ascii_case(definition)
            && one.scope.eq_ignore_ascii_case(scope)
            && one.name != name
    };
    if cloud.subscription.role_assignments().iter().any(same) {
        let message = "The role assignment already exists.";
        return Err(refusal(StatusCode::CONFLICT, "RoleAssignmentExists", message));
    }
    let new = RoleAssignment {
        scope: scope.to_owned(),
        name,
        principal,
        principal_kind: kind,
        definition: definition.to_owned(),
    };
    let answer = shown(&new);
    cloud.subscription.add_role_assignment(new).map_err(|_| subscriptions::full())?;
    Ok(with_status(StatusCode::CREATED, answer))
}

/// The kind of a principal of the tenant, which is the kind in the request if that has one.
fn kind_of(cloud: &Cloud, principal: Uuid, asked: Option<&str>) -> Result<PrincipalKind, Answer> {
    let bad = |code, message: String| refusal(StatusCode::BAD_REQUEST, code, &message);
    let tenant = cloud.directory.ids.tenant;
    let kind = cloud.principal_kind(principal).ok_or_else(|| {
        let message = format!("Principal {principal} does not exist in the directory {tenant}.");
        bad("PrincipalNotFound", message)
    })?;
    let name = kind.as_str();
    if asked.is_some_and(|asked| !asked.eq_ignore_ascii_case(name)) {
        let message = format!("The PrincipalId '{principal}' has type '{name}', and not the specified one.");
        return Err(bad("UnmatchedPrincipalType", message));
    }
    Ok(kind)
}

fn shown(one: &RoleAssignment) -> Value {
    json!({
        "id": format!("{}/providers/{KIND}/{}", one.scope, one.name),
        "name": one.name,
        "type": KIND,
        "properties": {
            "scope": one.scope,
            "principalId": one.principal,
            "principalType": one.principal_kind.as_str(),
            "roleDefinitionId": one.definition,
        },
    })
}
