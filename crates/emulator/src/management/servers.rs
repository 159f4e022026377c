//! The flexible server and its Entra administrators (Microsoft.DBforPostgreSQL/flexibleServers).

use hyper::StatusCode;
use pgentra_directory::PrincipalKind;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answers::{body, collection, json_answer, not_found, refusal};
use super::resource_groups::{LOCATION, is_home, only, resource_id};
use super::{operations, resource_groups, subscriptions};
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::{Answer, Call};
use crate::options::ServerOptions;
use crate::subscription::{Administrator, Effect};

pub(super) const PROVIDER: &str = "Microsoft.DBforPostgreSQL";
const KIND: &str = "Microsoft.DBforPostgreSQL/flexibleServers";

/// The longest name of a role in PostgreSQL, in bytes (NAMEDATALEN - 1).
const LONGEST_NAME: usize = 63;

/// `GET …/flexibleServers/{name}`
pub(super) fn show(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    Ok(json_answer(server_shown(cloud, server(cloud, group, name)?)))
}

/// `GET …/flexibleServers`, of a resource group or of the subscription.
pub(super) fn servers(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)?;
    Ok(collection(cloud.server.iter().filter(|_| here).map(|server| server_shown(cloud, server)).collect()))
}

fn server_shown(cloud: &Cloud, server: &ServerOptions) -> Value {
    let runs = cloud.subscription.running(&id(cloud, server), cloud.clock.unix()).is_some();
    json!({
        "sku": { "name": "Standard_D2ds_v5", "tier": "GeneralPurpose" },
        "location": LOCATION,
        "id": id(cloud, server),
        "name": server.name,
        "type": KIND,
        "properties": {
            "administratorLogin": "pgadmin",
            "authConfig": {
                "activeDirectoryAuth": "Enabled",
                "passwordAuth": "Enabled",
                "tenantId": cloud.directory.ids.tenant,
            },
            "fullyQualifiedDomainName": cloud.server_host,
            "replicationRole": "Primary",
            "state": if runs { "Updating" } else { "Ready" },
            "version": "17",
        },
    })
}

/// `GET …/administrators`
pub(super) fn list(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    let server = server(cloud, group, name)?;
    let administrators = cloud.subscription.administrators(cloud.clock.unix());
    Ok(collection(administrators.iter().map(|one| shown(cloud, server, one)).collect()))
}

/// `GET …/administrators/{object id}`
pub(super) fn administrator(cloud: &Cloud, (group, name): (&str, &str), id: &str) -> Result<Answer, Answer> {
    let server = server(cloud, group, name)?;
    let found = id.parse().ok().and_then(|id| found(cloud, id));
    found.map(json_answer).ok_or_else(|| {
        not_found(
            "Microsoft.DBforPostgreSQL/flexibleServers/administrators",
            &format!("{}/{id}", server.name),
            RESOURCE_GROUP,
        )
    })
}

/// The administrator with this object id, as the API shows it.
pub(super) fn found(cloud: &Cloud, object_id: Uuid) -> Option<Value> {
    let server = cloud.server.as_ref()?;
    let administrators = cloud.subscription.administrators(cloud.clock.unix());
    administrators.iter().find(|one| one.object_id == object_id).map(|one| shown(cloud, server, one))
}

/// `PUT …/administrators/{object id}`: 202; the administrator exists when the operation ends.
pub(super) fn add(
    cloud: &Cloud,
    call: &Call,
    (group, name): (&str, &str),
    id: &str,
) -> Result<Answer, Answer> {
    let server = server(cloud, group, name)?;
    let new = wanted(cloud, call, id)?;
    begin(cloud, server, new.object_id, Effect::Add(new))
}

/// The administrator that a request asks for.
pub(super) fn wanted(cloud: &Cloud, call: &Call, id: &str) -> Result<Administrator, Answer> {
    let object_id = object_id(id)?;
    let body = body(call)?;
    let text = |member: &str| body["properties"][member].as_str().unwrap_or_default();
    let name = text("principalName");
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(invalid("principalName"));
    }
    let kind = match text("principalType") {
        "" => Some(PrincipalKind::Unknown),
        text => PrincipalKind::ALL.into_iter().find(|kind| kind.as_str() == text),
    };
    let kind = known(cloud, object_id, kind.ok_or_else(|| invalid("principalType"))?);
    let tenant = text("tenantId");
    if !tenant.is_empty() && tenant.parse() != Ok(cloud.directory.ids.tenant) {
        return Err(invalid("tenantId"));
    }
    let now = cloud.clock.unix();
    cloud.subscription.room_for_administrator(object_id, now).map_err(|_| subscriptions::full())?;
    Ok(Administrator { object_id, name: name.to_owned(), kind })
}

/// `DELETE …/administrators/{object id}`: 202, or 204 where there is no such administrator.
pub(super) fn remove(cloud: &Cloud, (group, name): (&str, &str), id: &str) -> Result<Answer, Answer> {
    let server = server(cloud, group, name)?;
    let object_id = object_id(id)?;
    if found(cloud, object_id).is_none() {
        return Ok(Answer::text(StatusCode::NO_CONTENT, ""));
    }
    begin(cloud, server, object_id, Effect::Remove(object_id))
}

/// The server looks an unknown principal up in the tenant.
fn known(cloud: &Cloud, object_id: Uuid, kind: PrincipalKind) -> PrincipalKind {
    if kind != PrincipalKind::Unknown {
        return kind;
    }
    cloud.principal_kind(object_id).unwrap_or(PrincipalKind::ServicePrincipal)
}

/// Starts a change of an administrator.
fn begin(cloud: &Cloud, server: &ServerOptions, object_id: Uuid, effect: Effect) -> Result<Answer, Answer> {
    change(cloud, server, &format!("administrators/{object_id}"), effect)
}

/// Starts a change of a resource of the server, which does one thing at a time.
pub(super) fn change(
    cloud: &Cloud,
    server: &ServerOptions,
    resource: &str,
    effect: Effect,
) -> Result<Answer, Answer> {
    let server_id = id(cloud, server);
    idle(cloud, &server_id, &server.name)?;
    let operation = operations::start(cloud, &format!("{server_id}/{resource}"), effect);
    let answer = Answer::text(StatusCode::ACCEPTED, "");
    let location = operations::location(cloud, PROVIDER, &operation);
    Ok(operations::announced(cloud, answer, PROVIDER, &operation).with_header("Location", location))
}

/// `Err` while the server is busy with an operation.
pub(super) fn idle(cloud: &Cloud, id: &str, name: &str) -> Result<(), Answer> {
    if cloud.subscription.running(id, cloud.clock.unix()).is_none() {
        return Ok(());
    }
    let message = format!(
        "Cannot complete operation while server '{name}' is busy processing another operation. Try again later."
    );
    Err(refusal(StatusCode::CONFLICT, "ServerIsBusy", &message))
}

pub(super) fn server<'a>(cloud: &'a Cloud, group: &str, name: &str) -> Result<&'a ServerOptions, Answer> {
    let Some(server) = &cloud.server else {
        return Err(not_found(KIND, name, &resource_groups::group(cloud, group)?));
    };
    only(cloud, KIND, (group, name), &server.name)?;
    Ok(server)
}

pub(super) fn object_id(text: &str) -> Result<Uuid, Answer> {
    text.parse().map_err(|_| invalid("objectId"))
}

pub(super) fn invalid(parameter: &str) -> Answer {
    let message = format!("Invalid value given for parameter {parameter}. Specify a valid parameter value.");
    refusal(StatusCode::BAD_REQUEST, "InvalidParameterValue", &message)
}

fn shown(cloud: &Cloud, server: &ServerOptions, administrator: &Administrator) -> Value {
    let object_id = administrator.object_id;
    json!({
        "properties": {
            "principalType": administrator.kind.as_str(),
            "principalName": administrator.name,
            "objectId": object_id,
            "tenantId": cloud.directory.ids.tenant,
        },
        "id": format!("{}/administrators/{object_id}", id(cloud, server)),
        "name": object_id,
        "type": "Microsoft.DBforPostgreSQL/flexibleServers/administrators",
    })
}

pub(super) fn id(cloud: &Cloud, server: &ServerOptions) -> String {
    resource_id(cloud, RESOURCE_GROUP, &format!("{KIND}/{}", server.name))
}
