//! User-assigned identities as resources (Microsoft.ManagedIdentity/userAssignedIdentities).

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{body, collection, json_answer, not_found, refusal, with_status};
use super::resource_groups::{LOCATION, group};
use super::subscriptions;
use crate::cloud::Cloud;
use crate::directory::Identity;
use crate::exchange::{Answer, Call};
use crate::subscription::Tags;

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

/// `PUT …/userAssignedIdentities/{name}`: of an existing identity the tags alone are changed.
pub(super) fn create(cloud: &Cloud, call: &Call, in_group: &str, name: &str) -> Result<Answer, Answer> {
    let holder = group(cloud, in_group)?;
    let tags = tags(&body(call)?)?;
    if let Some(identity) = find(cloud, &holder, name) {
        cloud.subscription.set_tags(&identity, tags);
        return Ok(json_answer(shown(cloud, &identity)));
    }
    let identity = cloud.directory.new_identity(&holder, name);
    cloud.subscription.add_identity(identity.clone()).map_err(|_| subscriptions::full())?;
    cloud.subscription.set_tags(&identity, tags);
    cloud.principals.touch();
    Ok(with_status(StatusCode::CREATED, shown(cloud, &identity)))
}

/// `PATCH …/userAssignedIdentities/{name}`: other tags.
pub(super) fn change(cloud: &Cloud, call: &Call, in_group: &str, name: &str) -> Result<Answer, Answer> {
    let identity = named(cloud, in_group, name)?;
    let body = body(call)?;
    if !body["tags"].is_null() {
        cloud.subscription.set_tags(&identity, tags(&body)?);
    }
    Ok(json_answer(shown(cloud, &identity)))
}

/// `DELETE …/userAssignedIdentities/{name}`: its principal goes with it. Tokens that it has stay valid.
pub(super) fn delete(cloud: &Cloud, in_group: &str, name: &str) -> Result<Answer, Answer> {
    let holder = group(cloud, in_group)?;
    let Some(identity) = find(cloud, &holder, name) else {
        return Ok(Answer::text(StatusCode::NO_CONTENT, ""));
    };
    cloud.delete_principal(identity.object_id);
    Ok(Answer::text(StatusCode::OK, ""))
}

/// The tags in a body: at most 50 (Microsoft: tag-resources).
fn tags(body: &Value) -> Result<Tags, Answer> {
    let invalid = || {
        let message = "The tags are not an object of at most 50 texts of at most 256 characters.";
        refusal(StatusCode::BAD_REQUEST, "InvalidTags", message)
    };
    let Some(tags) = body.get("tags").filter(|tags| !tags.is_null()) else { return Ok(Tags::new()) };
    let tags = tags.as_object().filter(|tags| tags.len() <= 50).ok_or_else(invalid)?;
    let tag = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.chars().count() <= 256)?;
        (name.chars().count() <= 512).then(|| (name.clone(), value.to_owned()))
    };
    tags.iter().map(tag).collect::<Option<Tags>>().ok_or_else(invalid)
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
        "tags": cloud.subscription.tags(identity),
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
