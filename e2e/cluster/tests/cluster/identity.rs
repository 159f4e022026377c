//! A service account of the cluster signs in, with the cluster's own keys.

use e2e::Lab;
use serde_json::{Value, json};

use crate::kubernetes::Namespace;
use crate::stage::{Given, ROLE, cloud, given, grant, image};

/// A pod of the service account that asks PostgreSQL who it is.
fn pod(account: &str, given: &Given) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": account, "labels": { "azure.workload.identity/use": "true" } },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "hostAliases": given.aliases,
            "volumes": given.volumes,
            "containers": [{
                "name": "app",
                "image": image(),
                "imagePullPolicy": "Never",
                "args": ["query", "--token-timeout", "5s", "-U", ROLE, &given.server, "-o", "json", "-c", "SELECT current_user"],
                "env": given.env,
                "volumeMounts": given.mounts,
            }],
        },
    })
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn a_service_account_signs_in_with_the_keys_of_the_cluster() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "identity");
    let client_id = grant(&lab, &cloud, &namespace.name, "my-app");
    let given = given(&namespace, &cloud, &client_id);
    for account in ["my-app", "another"] {
        namespace.apply(&json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": account, "annotations": { "azure.workload.identity/client-id": client_id } },
        }));
    }

    let said = namespace.ends(&pod("my-app", &given), "Succeeded");
    assert_eq!(said.json()[0]["rows"][0][0], ROLE, "{said:?}");

    // The identity is that of one service account, and not of the cluster.
    let said = namespace.ends(&pod("another", &given), "Failed");
    assert!(said.ok().contains("AADSTS700213"), "{said:?}");
}
