//! User-assigned identities as resources (Microsoft.ManagedIdentity/userAssignedIdentities).

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{body, collection, json_answer, not_found, with_status};
use super::resource_groups::{LOCATION, group};
use super::subscriptions;
use crate::cloud::Cloud;
use crate::directory::Identity;
use crate::exchange::{Answer, Call};

const KIND: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// `GET …/userAssignedIdentities`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let holder = in_group.map(|name| group(cloud, name)).transpose()?;
    let inside = |identity: &Identity| {
        holder.as_deref().is_none_or(|holder| group_of(identity).eq_ignore_ascii_case(holder))
    };
    let identities = cloud.subscription.identities().into_iter().filter(inside);
    Ok(collection(identities.map(|identity| shown(cloud, &identity)).collect()))
}

/// `GET …/userAssignedIdentities/{name}`
pub(super) fn show(cloud: &Cloud, in_group: &str, name: &str) -> Result<Answer, Answer> {
    Ok(json_answer(shown(cloud, &named(cloud, in_group, name)?)))
}

/// The identity with this name in a resource group.
pub(super) fn named(cloud: &Cloud, in_group: &str, name: &str) -> Result<Identity, Answer> {
    let holder = group(cloud, in_group)?;
    find(cloud, &holder, name).ok_or_else(|| not_found(KIND, name, &holder))
}

/// `PUT …/userAssignedIdentities/{name}`: an existing identity is not changed.
pub(super) fn create(cloud: &Cloud, call: &Call, in_group: &str, name: &str) -> Result<Answer, Answer> {
    let holder = group(cloud, in_group)?;
    body(call)?;
    if let Some(identity) = find(cloud, &holder, name) {
        return Ok(json_answer(shown(cloud, &identity)));
    }
    let identity = cloud.directory.new_identity(&holder, name);
    let shown = shown(cloud, &identity);
    cloud.subscription.add_identity(identity).map_err(|_| subscriptions::full())?;
    cloud.principals.touch();
    Ok(with_status(StatusCode::CREATED, shown))
}

fn find(cloud: &Cloud, holder: &str, name: &str) -> Option<Identity> {
    let same = |identity: &Identity| {
        identity.name.eq_ignore_ascii_case(name) && group_of(identity).eq_ignore_ascii_case(holder)
    };
    cloud.subscription.identities().into_iter().find(same)
}

/// The resource group in its id.
fn group_of(identity: &Identity) -> &str {
    identity.resource_id.split('/').nth(4).unwrap_or_default()
}

fn shown(cloud: &Cloud, identity: &Identity) -> Value {
    json!({
        "location": LOCATION,
        "tags": {},
        "id": identity.resource_id,
        "name": identity.name,
        "type": KIND,
        "properties": {
            "tenantId": cloud.directory.ids.tenant,
            "principalId": identity.object_id,
            "clientId": identity.client_id,
        },
    })
}
