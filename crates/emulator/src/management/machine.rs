//! The virtual machine and its identities (Microsoft: qs-configure-rest-vm; Microsoft.Compute/virtualMachines).

use hyper::Method;
use serde_json::{Value, json};

use super::answers::{body, collection, json_answer};
use super::assignment::Assigned;
use super::operations;
use super::resource_groups::{LOCATION, is_home, only, resource_id};
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::{Answer, Call};
use crate::subscription::Effect;

const PROVIDER: &str = "Microsoft.Compute";
const KIND: &str = "Microsoft.Compute/virtualMachines";

/// `GET …/virtualMachines/{name}`
pub(super) fn show(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    only(cloud, KIND, (group, name), &cloud.directory.vm.name)?;
    Ok(json_answer(shown(cloud)))
}

/// `GET …/virtualMachines`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)?;
    Ok(collection(here.then(|| shown(cloud)).into_iter().collect()))
}

/// `PATCH` or `PUT …/virtualMachines/{name}`: of all that a machine has, its identities alone can change here.
pub(super) fn change(cloud: &Cloud, call: &Call, group: &str, name: &str) -> Result<Answer, Answer> {
    only(cloud, KIND, (group, name), &cloud.directory.vm.name)?;
    let body = body(call)?;
    let (id, identities) = (id(cloud), cloud.machine.identities());
    let own = || cloud.directory.new_principal_of_vm();
    let assigned = Assigned { id: &id, identities: &identities, own: &own };
    assigned.unchanged(call)?;
    match body.get("identity") {
        // A request without the member leaves the identities unchanged.
        None | Some(Value::Null) if call.method == Method::PATCH => {}
        identity => {
            let is_patch = call.method == Method::PATCH;
            let wanted = assigned.wanted(cloud, identity.unwrap_or(&Value::Null), is_patch)?;
            cloud.machine.set(wanted.clone());
            cloud.forget_own(&identities, &wanted);
            cloud.principals.touch();
        }
    }
    let operation = operations::start(cloud, &id, Effect::None);
    Ok(operations::announced(cloud, json_answer(shown(cloud)), PROVIDER, &operation))
}

fn shown(cloud: &Cloud) -> Value {
    let directory = &cloud.directory;
    let (id, identities) = (id(cloud), cloud.machine.identities());
    let runs = cloud.subscription.running(&id, cloud.clock.unix()).is_some();
    let own = || directory.new_principal_of_vm();
    let assigned = Assigned { id: &id, identities: &identities, own: &own };
    let mut machine = json!({
        "name": directory.vm.name,
        "id": id,
        "type": KIND,
        "location": LOCATION,
        "etag": assigned.etag(),
        "properties": {
            "hardwareProfile": { "vmSize": "Standard_B1s" },
            "provisioningState": if runs { "Updating" } else { "Succeeded" },
            "vmId": directory.ids.vm_id,
        },
    });
    if let Some(identity) = assigned.shown(cloud) {
        machine["identity"] = identity;
    }
    machine
}

fn id(cloud: &Cloud) -> String {
    resource_id(cloud, RESOURCE_GROUP, &format!("{KIND}/{}", cloud.directory.vm.name))
}
