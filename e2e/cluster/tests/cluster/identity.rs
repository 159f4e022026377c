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

/// The pod of the manifest with the sidecar, as the template of a Job.
fn with_sidecar(namespace: &Namespace<'_>, given: &Given) -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/sidecar.yaml");
    let read =
        namespace.kubectl(&["create", "--dry-run=client", "--output", "json", "--filename", manifest]).done();
    let objects = serde_json::Deserializer::from_str(read.ok()).into_iter::<Value>().map(Result::unwrap);
    let listed = |object: Value| object["items"].as_array().cloned().unwrap_or_else(|| vec![object]);
    let deployment = objects.flat_map(listed).find(|object| object["kind"] == "Deployment").unwrap();
    let mut template = deployment["spec"]["template"].clone();
    let spec = &mut template["spec"];
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = given.volumes.clone();
    spec["hostAliases"] = given.aliases.clone();
    let sidecar = &mut spec["initContainers"][0];
    sidecar["image"] = json!(image());
    sidecar["imagePullPolicy"] = json!("Never");
    sidecar["env"] = given.env.clone();
    sidecar["volumeMounts"] = given.mounts.clone();
    *sidecar["args"].as_array_mut().unwrap().last_mut().unwrap() = json!(given.server);
    let app = &mut spec["containers"][0];
    app["image"] = json!("client:1");
    app["imagePullPolicy"] = json!("Never");
    app["env"] = json!([]);
    let place = format!("postgresql://{ROLE}@127.0.0.1:5432/postgres?sslmode=disable");
    app["args"] = json!(["-At", "-c", "SELECT current_user", place]);
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "with-sidecar" },
        "spec": { "backoffLimit": 0, "template": template },
    })
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn a_job_with_the_sidecar_signs_in_and_completes() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "sidecar");
    let client_id = grant(&lab, &cloud, &namespace.name, "my-app");
    let given = given(&namespace, &cloud, &client_id);
    namespace
        .apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "my-app" } }));
    namespace.apply(&with_sidecar(&namespace, &given));
    // The sidecar starts before the application, and its end is not the Job's to wait for.
    let completed = ["wait", "--for=condition=Complete", "job/with-sidecar", "--timeout=2m"];
    let completed = namespace.kubectl(&completed).done();
    let said =
        |container: &str| namespace.kubectl(&["logs", "job/with-sidecar", "--container", container]).done();
    assert!(completed.status.success(), "{completed:?}\n{:?}\n{:?}", said("my-app"), said("pgentra"));
    assert_eq!(said("my-app").ok().trim_end(), ROLE);
}
