//! The database server as a cluster of Azure HorizonDB (Microsoft.HorizonDb/clusters, 2026-10-01-preview).
//!
//! The local cloud has one PostgreSQL. It is shown as a flexible server and as a HorizonDB cluster, with the same host and
//! the same administrators.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{collection, json_answer, not_found, with_status};
use super::resource_groups::{LOCATION, is_home, only, resource_id};
use super::{operations, resource_groups, servers};
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::{Answer, Call};
use crate::options::ServerOptions;
use crate::subscription::{Administrator, Effect};

const PROVIDER: &str = "Microsoft.HorizonDb";
const KIND: &str = "Microsoft.HorizonDb/clusters";
const ADMINISTRATORS: &str = "microsoftEntraAdministrators";
const NAME: &str = "my-horizondb";

/// `GET …/clusters`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)? && cloud.server.is_some();
    Ok(collection(here.then(|| shown(cloud)).into_iter().collect()))
}

/// `GET …/clusters/{name}`
pub(super) fn show(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    cluster(cloud, group, name)?;
    Ok(json_answer(shown(cloud)))
}

fn shown(cloud: &Cloud) -> Value {
    json!({
        "id": id(cloud),
        "name": NAME,
        "type": KIND,
        "location": LOCATION,
        "properties": {
            "postgreSqlVersion": "17",
            "creationMode": "Create",
            "network": { "publicAccess": "Enabled" },
            "state": "Ready",
            "provisioningState": "Succeeded",
            "readWritePool": { "designatedPoolResourceId": format!("{}/pools/{POOL}", id(cloud)) },
        },
    })
}

const POOL: &str = "my-pool";

/// `GET …/endpoints`: the cluster's own, and that of its pool, which only reads.
pub(super) fn endpoints(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    let server = cluster(cloud, group, name)?;
    let endpoint = |name: &str, scope: &str, of: String, host: String, role: &str| {
        json!({
            "id": format!("{}/endpoints/{name}", id(cloud)),
            "name": name,
            "type": format!("{KIND}/endpoints"),
            "properties": {
                "scope": scope,
                "associatedResourceId": of,
                "fullyQualifiedDomainName": host,
                "role": role,
            },
        })
    };
    let (pool, pool_host) = (format!("{}/pools/{POOL}", id(cloud)), format!("{POOL}.{}", server.host));
    Ok(collection(vec![
        endpoint(POOL, "Pool", pool, pool_host, "ReadOnly"),
        endpoint(NAME, "Cluster", id(cloud), server.host.clone(), "ReadWrite"),
    ]))
}

/// `GET …/authentications/{method}`: both methods are enabled.
pub(super) fn authentication(
    cloud: &Cloud,
    (group, name): (&str, &str),
    method: &str,
) -> Result<Answer, Answer> {
    cluster(cloud, group, name)?;
    let known = ["passwordMethod", "microsoftEntra"].into_iter().find(|one| one.eq_ignore_ascii_case(method));
    let kind = format!("{KIND}/authentications");
    let Some(method) = known else {
        return Err(not_found(&kind, &format!("{NAME}/{method}"), RESOURCE_GROUP));
    };
    Ok(json_answer(json!({
        "id": format!("{}/authentications/{method}", id(cloud)),
        "name": method,
        "type": kind,
        "properties": { "state": "Enabled", "provisioningState": "Succeeded" },
    })))
}

/// `GET …/microsoftEntraAdministrators`
pub(super) fn administrators(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    cluster(cloud, group, name)?;
    let all = cloud.subscription.administrators(cloud.clock.unix());
    Ok(collection(all.iter().map(|one| administrator_shown(cloud, one, "Succeeded")).collect()))
}

/// `GET …/microsoftEntraAdministrators/{object id}`
pub(super) fn administrator(
    cloud: &Cloud,
    (group, name): (&str, &str),
    object_id: &str,
) -> Result<Answer, Answer> {
    cluster(cloud, group, name)?;
    let all = cloud.subscription.administrators(cloud.clock.unix());
    let found = all.iter().find(|one| object_id.parse() == Ok(one.object_id));
    let found = found.map(|one| json_answer(administrator_shown(cloud, one, "Succeeded")));
    found.ok_or_else(|| {
        not_found(&format!("{KIND}/{ADMINISTRATORS}"), &format!("{NAME}/{object_id}"), RESOURCE_GROUP)
    })
}

/// `PUT …/microsoftEntraAdministrators/{object id}`: 201 with the resource; it exists when the operation ends.
pub(super) fn add(
    cloud: &Cloud,
    call: &Call,
    (group, name): (&str, &str),
    object_id: &str,
) -> Result<Answer, Answer> {
    cluster(cloud, group, name)?;
    let new = servers::wanted(cloud, call, object_id)?;
    let body = administrator_shown(cloud, &new, "Provisioning");
    let answer = with_status(StatusCode::CREATED, body);
    let operation = begin(cloud, &new.object_id.to_string(), Effect::Add(new))?;
    Ok(operations::announced(cloud, answer, PROVIDER, &operation))
}

/// `DELETE …/microsoftEntraAdministrators/{object id}`: 202, or 204 where there is no such administrator.
pub(super) fn remove(cloud: &Cloud, (group, name): (&str, &str), object_id: &str) -> Result<Answer, Answer> {
    cluster(cloud, group, name)?;
    let wanted = servers::object_id(object_id)?;
    if servers::found(cloud, wanted).is_none() {
        return Ok(Answer::text(StatusCode::NO_CONTENT, ""));
    }
    let operation = begin(cloud, object_id, Effect::Remove(wanted))?;
    let location = operations::location(cloud, PROVIDER, &operation);
    let answer = Answer::text(StatusCode::ACCEPTED, "");
    Ok(operations::announced(cloud, answer, PROVIDER, &operation).with_header("Location", location))
}

/// Starts a change of the administrators; a cluster does one thing at a time.
fn begin(cloud: &Cloud, object_id: &str, effect: Effect) -> Result<crate::subscription::Operation, Answer> {
    let id = id(cloud);
    servers::idle(cloud, &id, NAME)?;
    Ok(operations::start(cloud, &format!("{id}/{ADMINISTRATORS}/{object_id}"), effect))
}

fn administrator_shown(cloud: &Cloud, administrator: &Administrator, state: &str) -> Value {
    let object_id = administrator.object_id;
    json!({
        "id": format!("{}/{ADMINISTRATORS}/{object_id}", id(cloud)),
        "name": object_id,
        "type": format!("{KIND}/{ADMINISTRATORS}"),
        "properties": {
            "principalName": administrator.name,
            "principalType": administrator.kind.as_str(),
            "objectId": object_id,
            "tenantId": cloud.directory.ids.tenant,
            "provisioningState": state,
        },
    })
}

fn cluster<'a>(cloud: &'a Cloud, group: &str, name: &str) -> Result<&'a ServerOptions, Answer> {
    let Some(server) = &cloud.server else {
        return Err(not_found(KIND, name, &resource_groups::group(cloud, group)?));
    };
    only(cloud, KIND, (group, name), NAME)?;
    Ok(server)
}

fn id(cloud: &Cloud) -> String {
    resource_id(cloud, RESOURCE_GROUP, &format!("{KIND}/{NAME}"))
}
