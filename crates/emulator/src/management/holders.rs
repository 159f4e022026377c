//! Apps, scale sets and servers outside of Azure, and their identities (Microsoft.Web/sites, Microsoft.App/containerApps,
//! Microsoft.Compute/virtualMachineScaleSets, Microsoft.HybridCompute/machines).

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::answers::{body, collection, json_answer, not_found, refusal, with_status};
use super::assignment::Assigned;
use super::operations;
use super::resource_groups::{LOCATION, group, is_home, resource_id};
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::{Answer, Call};
use crate::holders::{HolderResource, HolderType, own};
use crate::subscription::Effect;

/// `GET …/{kind}`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, kind: HolderType, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)?;
    let all = cloud.holders.of(kind).into_iter().filter(|_| here);
    Ok(collection(all.map(|holder| shown(cloud, &holder)).collect()))
}

/// `GET …/{kind}/{name}`
pub(super) fn show(cloud: &Cloud, kind: HolderType, named: (&str, &str)) -> Result<Answer, Answer> {
    Ok(json_answer(shown(cloud, &find(cloud, kind, named)?)))
}

/// `PATCH` or `PUT …/{kind}/{name}`: of all that it has, its identities alone can change here.
pub(super) fn change(
    cloud: &Cloud,
    call: &Call,
    kind: HolderType,
    named: (&str, &str),
) -> Result<Answer, Answer> {
    let holder = find(cloud, kind, named)?;
    if kind == HolderType::ArcServer {
        let message = "The identity of a connected machine is made by its agent.";
        return Err(refusal(StatusCode::BAD_REQUEST, "HCRP400", message));
    }
    let body = body(call)?;
    let id = id(cloud, &holder);
    let is_patch = call.method == Method::PATCH;
    match body.get("identity") {
        // A request without the member leaves the identities unchanged.
        None | Some(Value::Null) if is_patch => {}
        identity => {
            let wanted = assigned(cloud, &holder, &id, |assigned| {
                assigned.unchanged(call)?;
                assigned.wanted(cloud, identity.unwrap_or(&Value::Null), is_patch)
            })?;
            cloud.holders.set(kind, holder.name, wanted.clone());
            cloud.forget_own(&holder.identities, &wanted);
            cloud.principals.touch();
        }
    }
    let after = shown(cloud, &find(cloud, kind, named)?);
    Ok(match kind {
        // An app is changed at once.
        HolderType::Site | HolderType::ArcServer => json_answer(after),
        HolderType::ScaleSet => {
            let operation = operations::start(cloud, &id, Effect::None);
            operations::announced(cloud, json_answer(after), "Microsoft.Compute", &operation)
        }
        HolderType::ContainerApp => {
            let operation = operations::start(cloud, &id, Effect::None);
            let provider = "Microsoft.App";
            match is_patch {
                true => Answer::text(StatusCode::ACCEPTED, "")
                    .with_header("Location", operations::location(cloud, provider, &operation))
                    .with_header("Retry-After", operations::retry_after(cloud, &operation)),
                false => {
                    let created = with_status(StatusCode::CREATED, after);
                    operations::announced(cloud, created, provider, &operation)
                }
            }
        }
    })
}

fn find(cloud: &Cloud, kind: HolderType, (in_group, name): (&str, &str)) -> Result<HolderResource, Answer> {
    let holder = group(cloud, in_group)?;
    let found = cloud.holders.find(kind, name).filter(|_| holder == RESOURCE_GROUP);
    found.ok_or_else(|| not_found(kind.path(), name, &holder))
}

/// Does something with the identities of a resource.
fn assigned<T>(cloud: &Cloud, holder: &HolderResource, id: &str, work: impl FnOnce(&Assigned<'_>) -> T) -> T {
    let new = || own(holder, cloud.directory.ids.subscription);
    work(&Assigned { id, identities: &holder.identities, own: &new })
}

fn shown(cloud: &Cloud, holder: &HolderResource) -> Value {
    let id = id(cloud, holder);
    let runs = cloud.subscription.running(&id, cloud.clock.unix()).is_some();
    let state = if runs { "Updating" } else { "Succeeded" };
    let properties = match holder.kind {
        HolderType::Site => json!({
            "state": "Running",
            "enabled": true,
            "hostNames": [format!("{}.azurewebsites.net", holder.name.to_lowercase())],
            "defaultHostName": format!("{}.azurewebsites.net", holder.name.to_lowercase()),
            "reserved": true,
        }),
        HolderType::ContainerApp => json!({
            "provisioningState": state,
            "runningStatus": "Running",
            "configuration": { "activeRevisionsMode": "Single" },
            "template": { "containers": [{ "name": "app", "image": "app:1" }] },
        }),
        HolderType::ScaleSet => json!({
            "provisioningState": state,
            "orchestrationMode": "Uniform",
            "upgradePolicy": { "mode": "Manual" },
            "singlePlacementGroup": true,
        }),
        HolderType::ArcServer => {
            json!({ "provisioningState": state, "status": "Connected", "osType": "linux" })
        }
    };
    let mut resource = json!({
        "name": holder.name,
        "id": id,
        "type": holder.kind.path(),
        "location": LOCATION,
        "properties": properties,
    });
    if let Some(app) = holder.app {
        resource["kind"] = json!(app);
    }
    assigned(cloud, holder, &id, |assigned| {
        // An app has no entity tag.
        if holder.kind == HolderType::ScaleSet {
            resource["etag"] = json!(assigned.etag());
        }
        if let Some(identity) = assigned.shown(cloud) {
            resource["identity"] = identity;
        }
    });
    resource
}

fn id(cloud: &Cloud, holder: &HolderResource) -> String {
    resource_id(cloud, RESOURCE_GROUP, &format!("{}/{}", holder.kind.path(), holder.name))
}
