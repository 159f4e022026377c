//! The Kubernetes cluster, whose issuer signs the tokens of its service accounts
//! (Microsoft.ContainerService/managedClusters).

use serde_json::{Value, json};

use super::answers::{collection, json_answer};
use super::resource_groups::{LOCATION, is_home, only, resource_id};
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::Answer;

const KIND: &str = "Microsoft.ContainerService/managedClusters";
const NAME: &str = "myCluster";

/// `GET …/managedClusters`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)?;
    Ok(collection(here.then(|| shown(cloud)).into_iter().collect()))
}

/// `GET …/managedClusters/{name}`
pub(super) fn show(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    only(cloud, KIND, (group, name), NAME)?;
    Ok(json_answer(shown(cloud)))
}

fn shown(cloud: &Cloud) -> Value {
    json!({
        "name": NAME,
        "id": resource_id(cloud, RESOURCE_GROUP, &format!("{KIND}/{NAME}")),
        "type": KIND,
        "location": LOCATION,
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": { "code": "Running" },
            "kubernetesVersion": "1.33",
            "oidcIssuerProfile": {
                "enabled": true,
                "issuerURL": cloud.federation.kubernetes_issuer(),
            },
            "securityProfile": { "workloadIdentity": { "enabled": true } },
        },
    })
}
