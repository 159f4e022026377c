//! Azure Resource Manager and Microsoft Graph, as far as identities and database administrators need them.
//!
//! Permissions: the administrator and the application `myApp` are owners of the subscription; other principals have no
//! role in it, as on Azure, where a new identity has no permissions. Every member of the tenant but a managed identity may read the
//! directory.

mod bearer;
mod graph;
mod identities;
mod machine;
mod operations;
mod resource_path;
mod servers;
mod subscriptions;
mod versions;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use bearer::Caller;
use resource_path::ResourcePath;

/// Where every resource of the local Azure is.
const LOCATION: &str = "westeurope";

pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    if path.starts_with("/v1.0/") {
        return Some(Endpoint::Graph);
    }
    ResourcePath::of(path).map(|(place, _)| place.endpoint())
}

/// The response of Resource Manager for an unknown path.
pub(crate) fn nothing_here(call: &Call) -> Answer {
    let message = format!("The requested resource at '{}' does not exist.", call.path);
    refusal(StatusCode::NOT_FOUND, "NotFound", &message)
}

pub(crate) fn graph(cloud: &Cloud, call: &Call) -> Answer {
    graph::answer(cloud, call)
}

pub(crate) fn resource_manager(cloud: &Cloud, call: &Call) -> Answer {
    let answered = match ResourcePath::of(&call.path) {
        Some((ResourcePath::Endpoints, _)) => Ok(subscriptions::endpoints(cloud)),
        Some((place, subscription)) => permitted(cloud, call, place, subscription)
            .and_then(|caller| dispatch(cloud, call, place, &caller)),
        None => Err(nothing_here(call)),
    };
    let request = Uuid::new_v4().to_string();
    answered
        .unwrap_or_else(|refusal| refusal)
        .with_header("x-ms-request-id", request.clone())
        .with_header("x-ms-correlation-request-id", request)
        .with_header("Cache-Control", "no-cache")
}

/// The caller, if the request is well-formed and its token and roles allow it.
fn permitted(
    cloud: &Cloud,
    call: &Call,
    place: ResourcePath<'_>,
    subscription: Option<&str>,
) -> Result<Caller, Answer> {
    let caller = bearer::at_resource_manager(cloud, call)?;
    match call.query.get("api-version") {
        None => {
            let message = "The api-version query parameter (?api-version=) is required for all requests.";
            return Err(refusal(StatusCode::BAD_REQUEST, "MissingApiVersionParameter", message));
        }
        Some(version) => versions::check(place.kind(), version, &today(cloud))?,
    }
    let own = cloud.directory.ids.subscription.to_string();
    if let Some(named) = subscription.filter(|named| !named.eq_ignore_ascii_case(&own)) {
        let message = format!("The subscription '{named}' could not be found.");
        return Err(refusal(StatusCode::NOT_FOUND, "SubscriptionNotFound", &message));
    }
    if subscription.is_some() && !caller.is_owner(cloud) {
        return Err(unauthorized(&caller, &place.action(&call.method), &call.path));
    }
    Ok(caller)
}

fn dispatch(cloud: &Cloud, call: &Call, place: ResourcePath<'_>, caller: &Caller) -> Result<Answer, Answer> {
    match (&call.method, place) {
        (&Method::GET, ResourcePath::Tenants) => Ok(subscriptions::tenants(cloud)),
        (&Method::GET, ResourcePath::Subscriptions) => Ok(subscriptions::list(cloud, caller)),
        (&Method::GET, ResourcePath::Subscription) => Ok(json_answer(subscriptions::subscription(cloud))),
        (&Method::GET, ResourcePath::ResourceGroups) => Ok(subscriptions::groups(cloud)),
        (&Method::GET, ResourcePath::ResourceGroup(name)) => {
            Ok(json_answer(subscriptions::group(cloud, &group(cloud, name)?)))
        }
        (&Method::PUT, ResourcePath::ResourceGroup(name)) => subscriptions::create_group(cloud, name),
        (&Method::GET, ResourcePath::VirtualMachines { group }) => machine::list(cloud, group),
        (&Method::GET, ResourcePath::Servers { group }) => servers::servers(cloud, group),
        (&Method::GET, ResourcePath::VirtualMachine { group, name }) => machine::show(cloud, group, name),
        (&Method::PATCH | &Method::PUT, ResourcePath::VirtualMachine { group, name }) => {
            machine::change(cloud, call, group, name)
        }
        (&Method::GET, ResourcePath::Identities { group }) => identities::list(cloud, group),
        (&Method::GET, ResourcePath::Identity { group, name }) => identities::show(cloud, group, name),
        (&Method::PUT, ResourcePath::Identity { group, name }) => {
            identities::create(cloud, call, group, name)
        }
        (&Method::GET, ResourcePath::Server { group, name }) => servers::show(cloud, group, name),
        (&Method::GET, ResourcePath::Administrators { group, server }) => servers::list(cloud, group, server),
        (&Method::GET, ResourcePath::Administrator { group, server, id }) => {
            servers::administrator(cloud, (group, server), id)
        }
        (&Method::PUT, ResourcePath::Administrator { group, server, id }) => {
            servers::add(cloud, call, (group, server), id)
        }
        (&Method::DELETE, ResourcePath::Administrator { group, server, id }) => {
            servers::remove(cloud, (group, server), id)
        }
        (&Method::GET, ResourcePath::Operation(id)) => operations::status(cloud, id),
        (&Method::GET, ResourcePath::Result(id)) => operations::result(cloud, id),
        (method, _) => {
            let message = format!("The requested resource does not support http method '{method}'.");
            Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message))
        }
    }
}

/// The resource group called `name`.
fn group(cloud: &Cloud, name: &str) -> Result<String, Answer> {
    cloud.subscription.resource_group(name).ok_or_else(|| {
        let message = format!("Resource group '{name}' could not be found.");
        refusal(StatusCode::NOT_FOUND, "ResourceGroupNotFound", &message)
    })
}

/// Whether this group has the resources that the local cloud starts with, or no group is given.
fn is_home(cloud: &Cloud, in_group: Option<&str>) -> Result<bool, Answer> {
    in_group.map_or(Ok(true), |name| Ok(group(cloud, name)? == RESOURCE_GROUP))
}

/// `Err` unless `named` is the one resource of this kind that the local cloud starts with.
fn only(cloud: &Cloud, kind: &str, (in_group, named): (&str, &str), name: &str) -> Result<(), Answer> {
    let holder = group(cloud, in_group)?;
    if holder == RESOURCE_GROUP && named.eq_ignore_ascii_case(name) {
        return Ok(());
    }
    Err(not_found(kind, named, &holder))
}

/// 404 in Resource Manager's words.
fn not_found(kind: &str, name: &str, group: &str) -> Answer {
    let message = format!(
        "The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to \
         https://aka.ms/ARMResourceNotFoundFix"
    );
    refusal(StatusCode::NOT_FOUND, "ResourceNotFound", &message)
}

fn unauthorized(caller: &Caller, action: &str, scope: &str) -> Answer {
    let (client, object) = (caller.name(), caller.object_id);
    let message = format!(
        "The client '{client}' with object id '{object}' does not have authorization to perform action '{action}' \
         over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
    );
    refusal(StatusCode::FORBIDDEN, "AuthorizationFailed", &message)
}

/// The error form of Resource Manager (Microsoft: resource-manager common types, `ErrorResponse`).
fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(status, vec![("error", json!({"code": code, "message": message}))])
}

fn json_answer(value: Value) -> Answer {
    with_status(StatusCode::OK, value)
}

fn with_status(status: StatusCode, value: Value) -> Answer {
    Answer::text(status, value.to_string()).typed("application/json; charset=utf-8")
}

/// A collection of Resource Manager.
fn collection(values: Vec<Value>) -> Answer {
    json_answer(json!({ "value": values }))
}

/// The body as a JSON object.
fn body(call: &Call) -> Result<Value, Answer> {
    let parsed = serde_json::from_slice(&call.body).ok().filter(Value::is_object);
    parsed.ok_or_else(|| {
        let message = "The request content was invalid and could not be deserialized.";
        refusal(StatusCode::BAD_REQUEST, "InvalidRequestContent", message)
    })
}

/// The path of something in a resource group, as Azure writes resource ids.
fn resource_id(cloud: &Cloud, group: &str, rest: &str) -> String {
    let subscription = cloud.directory.ids.subscription;
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{rest}")
}

/// The date in this cloud, `2026-11-28`.
fn today(cloud: &Cloud) -> String {
    let now = jiff::Timestamp::from_second(cloud.clock.unix());
    now.map(|now| now.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

/// `2024-11-01`, or with `-preview` behind it.
fn is_version(text: &str) -> bool {
    let text = text.strip_suffix("-preview").unwrap_or(text);
    let parts: Vec<&str> = text.split('-').collect();
    let shape: Vec<usize> = parts
        .iter()
        .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|part| part.len())
        .collect();
    shape == [4, 2, 2] && parts.len() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_date() {
        for (text, good) in [
            ("2024-11-01", true),
            ("2026-04-01-preview", true),
            ("2024-11", false),
            ("latest", false),
            ("2024-11-01-x", false),
        ] {
            assert_eq!(is_version(text), good, "{text}");
        }
    }
}
