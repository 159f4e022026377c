//! Azure Resource Manager and Microsoft Graph, as far as identities and database administrators need them.
//!
//! Permissions: the administrator and the application `myApp` are owners of the subscription; other principals have no
//! role in it, as on Azure, where a new identity has no permissions. Every member of the tenant but a managed identity may read the
//! directory.

mod answers;
mod assignment;
mod bearer;
mod clusters;
mod configurations;
mod federated_credentials;
mod graph;
mod holders;
mod horizon_db;
mod identities;
mod machine;
mod operation_results;
mod operations;
mod resource_groups;
mod resource_path;
mod role_assignments;
mod role_definitions;
mod servers;
mod subscriptions;
mod versions;

use hyper::{Method, StatusCode};
use uuid::Uuid;

use crate::cloud::Cloud;
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use answers::{json_answer, refusal};
use bearer::Caller;
pub(crate) use configurations::is_pgbouncer_setting;
use resource_groups::group;
use resource_path::{HorizonDbPart, ResourcePath};

pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    if graph::VERSIONS.iter().any(|version| path.starts_with(version)) {
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
        (&Method::PATCH, ResourcePath::Identity { group, name }) => {
            identities::change(cloud, call, group, name)
        }
        (&Method::DELETE, ResourcePath::Identity { group, name }) => identities::delete(cloud, group, name),
        (&Method::GET, ResourcePath::FederatedCredentials { group, identity }) => {
            federated_credentials::list(cloud, (group, identity))
        }
        (&Method::GET, ResourcePath::FederatedCredential { group, identity, name }) => {
            federated_credentials::show(cloud, (group, identity), name)
        }
        (&Method::PUT, ResourcePath::FederatedCredential { group, identity, name }) => {
            federated_credentials::create(cloud, call, (group, identity), name)
        }
        (&Method::DELETE, ResourcePath::FederatedCredential { group, identity, name }) => {
            federated_credentials::delete(cloud, (group, identity), name)
        }
        (&Method::GET, ResourcePath::Holders { kind, group }) => holders::list(cloud, kind, group),
        (&Method::GET, ResourcePath::Holder { kind, group, name }) => {
            holders::show(cloud, kind, (group, name))
        }
        (&Method::PATCH | &Method::PUT, ResourcePath::Holder { kind, group, name }) => {
            holders::change(cloud, call, kind, (group, name))
        }
        (&Method::GET, ResourcePath::Clusters { group }) => clusters::list(cloud, group),
        (&Method::GET, ResourcePath::Cluster { group, name }) => clusters::show(cloud, group, name),
        (&Method::GET, ResourcePath::RoleAssignments { scope }) => role_assignments::list(cloud, call, scope),
        (&Method::GET, ResourcePath::RoleAssignment { scope, name }) => {
            role_assignments::show(cloud, scope, name)
        }
        (&Method::PUT, ResourcePath::RoleAssignment { scope, name }) => {
            role_assignments::create(cloud, call, scope, name)
        }
        (&Method::DELETE, ResourcePath::RoleAssignment { scope, name }) => {
            role_assignments::delete(cloud, scope, name)
        }
        (&Method::GET, ResourcePath::RoleDefinitions) => role_definitions::list(cloud, call),
        (&Method::GET, ResourcePath::RoleDefinition(name)) => role_definitions::show(cloud, name),
        (&Method::GET, ResourcePath::Provider(namespace)) => {
            Ok(json_answer(subscriptions::provider(cloud, namespace)))
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
        (&Method::GET, ResourcePath::Configurations { group, server }) => {
            configurations::list(cloud, group, server)
        }
        (&Method::GET, ResourcePath::Configuration { group, server, name }) => {
            configurations::show(cloud, (group, server), name)
        }
        (&Method::PUT | &Method::PATCH, ResourcePath::Configuration { group, server, name }) => {
            configurations::change(cloud, call, (group, server), name)
        }
        (&Method::GET, ResourcePath::HorizonDbClusters { group }) => horizon_db::list(cloud, group),
        (&Method::GET, ResourcePath::HorizonDbCluster { group, name }) => {
            horizon_db::show(cloud, group, name)
        }
        (_, ResourcePath::HorizonDbPart { group, cluster, part }) => {
            horizon_db_part(cloud, call, (group, cluster), part)
        }
        (&Method::GET, ResourcePath::Operation(id)) => operations::status(cloud, id),
        (&Method::GET, ResourcePath::Result(id)) => operation_results::result(cloud, id),
        (method, _) => Err(not_allowed(method)),
    }
}

fn horizon_db_part(
    cloud: &Cloud,
    call: &Call,
    (group, name): (&str, &str),
    part: HorizonDbPart<'_>,
) -> Result<Answer, Answer> {
    match (&call.method, part) {
        (&Method::GET, HorizonDbPart::Endpoints) => horizon_db::endpoints(cloud, group, name),
        (&Method::GET, HorizonDbPart::Authentication(method)) => {
            horizon_db::authentication(cloud, (group, name), method)
        }
        (&Method::GET, HorizonDbPart::Administrators) => horizon_db::administrators(cloud, group, name),
        (&Method::GET, HorizonDbPart::Administrator(id)) => {
            horizon_db::administrator(cloud, (group, name), id)
        }
        (&Method::PUT, HorizonDbPart::Administrator(id)) => horizon_db::add(cloud, call, (group, name), id),
        (&Method::DELETE, HorizonDbPart::Administrator(id)) => horizon_db::remove(cloud, (group, name), id),
        (method, _) => Err(not_allowed(method)),
    }
}

fn not_allowed(method: &Method) -> Answer {
    let message = format!("The requested resource does not support http method '{method}'.");
    refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message)
}

fn unauthorized(caller: &Caller, action: &str, scope: &str) -> Answer {
    let (client, object) = (caller.name(), caller.object_id);
    let message = format!(
        "The client '{client}' with object id '{object}' does not have authorization to perform action '{action}' \
         over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
    );
    refusal(StatusCode::FORBIDDEN, "AuthorizationFailed", &message)
}

/// The date in this cloud, `2026-11-28`.
fn today(cloud: &Cloud) -> String {
    let now = jiff::Timestamp::from_second(cloud.clock.unix());
    now.map(|now| now.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}
