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
/// The name of [`Options::trusted_cluster`](crate::Options::trusted_cluster).
const TRUSTED: &str = "trustedCluster";

/// `GET …/managedClusters`, of a resource group or of the subscription.
pub(super) fn list(cloud: &Cloud, in_group: Option<&str>) -> Result<Answer, Answer> {
    let here = is_home(cloud, in_group)?;
    Ok(collection(if here { clusters(cloud).map(|one| shown(cloud, one)).collect() } else { Vec::new() }))
}

/// `GET …/managedClusters/{name}`
pub(super) fn show(cloud: &Cloud, group: &str, name: &str) -> Result<Answer, Answer> {
    let named = clusters(cloud).find(|(own, _)| own.eq_ignore_ascii_case(name)).unwrap_or((NAME, ""));
    only(cloud, KIND, (group, name), named.0)?;
    Ok(json_answer(shown(cloud, named)))
}

/// Names and issuers.
fn clusters(cloud: &Cloud) -> impl Iterator<Item = (&'static str, &str)> {
    let trusted = cloud.federation.trusted_cluster().map(|cluster| (TRUSTED, &*cluster.issuer));
    [(NAME, cloud.federation.kubernetes_issuer())].into_iter().chain(trusted)
}

fn shown(cloud: &Cloud, (name, issuer): (&str, &str)) -> Value {
    json!({
        "name": name,
        "id": resource_id(cloud, RESOURCE_GROUP, &format!("{KIND}/{name}")),
        "type": KIND,
        "location": LOCATION,
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": { "code": "Running" },
            "kubernetesVersion": "1.33",
            "oidcIssuerProfile": {
                "enabled": true,
                "issuerURL": issuer,
            },
            "securityProfile": { "workloadIdentity": { "enabled": true } },
        },
    })
}
