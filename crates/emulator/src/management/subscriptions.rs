//! The tenant, its one subscription, and resource groups.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{collection, json_answer, refusal, with_status};
use super::bearer::Caller;
use super::resource_groups::LOCATION;
use crate::cloud::Cloud;
use crate::exchange::Answer;

/// `GET /metadata/endpoints`, in the form of 2022-09-01: what a client needs to know of this cloud.
pub(super) fn endpoints(cloud: &Cloud) -> Answer {
    let management = &cloud.addresses.management;
    json_answer(json!({
        "name": "Local",
        "resourceManager": management,
        "microsoftGraphResourceId": cloud.addresses.graph,
        "ossrdbmsResourceId": "https://ossrdbms-aad.database.windows.net",
        "portal": management,
        "authentication": {
            "loginEndpoint": cloud.addresses.authority.trim_end_matches('/'),
            "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "suffixes": { "postgresqlServerEndpoint": "postgres.database.azure.com" },
    }))
}

/// `GET /tenants`
pub(super) fn tenants(cloud: &Cloud) -> Answer {
    let tenant = cloud.directory.ids.tenant;
    collection(vec![json!({
        "id": format!("/tenants/{tenant}"),
        "tenantId": tenant,
        "displayName": "Local",
        "defaultDomain": cloud.directory.domain,
        "tenantCategory": "Home",
    })])
}

/// `GET /subscriptions`: those in which the caller has a role.
pub(super) fn list(cloud: &Cloud, caller: &Caller) -> Answer {
    collection(caller.is_owner(cloud).then(|| subscription(cloud)).into_iter().collect())
}

pub(super) fn subscription(cloud: &Cloud) -> Value {
    let ids = &cloud.directory.ids;
    json!({
        "id": format!("/subscriptions/{}", ids.subscription),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": ids.subscription,
        "tenantId": ids.tenant,
        "displayName": "Local subscription",
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}

/// `GET …/providers/{namespace}`: every resource provider is registered.
pub(super) fn provider(cloud: &Cloud, namespace: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{}/providers/{namespace}", cloud.directory.ids.subscription),
        "namespace": namespace,
        "registrationState": "Registered",
        "resourceTypes": [],
    })
}

/// `GET …/resourceGroups`
pub(super) fn groups(cloud: &Cloud) -> Answer {
    collection(cloud.subscription.resource_groups().iter().map(|name| group(cloud, name)).collect())
}

pub(super) fn group(cloud: &Cloud, name: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{}/resourceGroups/{name}", cloud.directory.ids.subscription),
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": LOCATION,
        "properties": { "provisioningState": "Succeeded" },
    })
}

/// `PUT …/resourceGroups/{name}`; all are in one location.
pub(super) fn create_group(cloud: &Cloud, name: &str) -> Result<Answer, Answer> {
    let known = cloud.subscription.resource_group(name);
    if cloud.subscription.add_resource_group(name).is_err() {
        return Err(full());
    }
    let status = if known.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok(with_status(status, group(cloud, known.as_deref().unwrap_or(name))))
}

/// The local cloud holds no more.
pub(super) fn full() -> Answer {
    let message = "The local cloud holds no more resources of this kind.";
    refusal(StatusCode::CONFLICT, "QuotaExceeded", message)
}
