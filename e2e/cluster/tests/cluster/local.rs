//! The chart of the local cloud: an Azure in the cluster itself.

use e2e::Lab;
use serde_json::{Value, json};

use crate::chart::HELM;
use crate::kubernetes::{Namespace, helm};
use crate::stage::{image, keys};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/pgentra-local");
/// The Service of the chart.
const SERVICE: &str = "azure-pgentra-local";
/// A service account, its identity and its role.
const NAME: &str = "my-app";

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn service_accounts_sign_in_at_a_local_cloud_in_the_cluster() {
    let lab = Lab::new();
    let namespace = Namespace::new(&lab, "azure");
    let (issuer, keys) = keys(&lab);
    let roll_out = |what: &str, more: &[&str]| {
        let issuer = format!("trustedCluster.issuer={issuer}");
        let keys = format!("trustedCluster.keys={}", keys.display());
        let words = [what, "azure", CHART, "--namespace", &namespace.name, "--wait", "--timeout", "4m"];
        let values = ["--set", "image.pullPolicy=Never", "--set", &issuer, "--set-file", &keys];
        helm(&lab, HELM[1], &[&words[..], &values, more].concat()).done().ok();
    };
    roll_out("install", &[]);
    assert_eq!(signs_in(&namespace, "first"), NAME);

    // The pod is new, and so are its identities. Pods trust the same authority.
    let before = authority(&namespace);
    roll_out("upgrade", &["--set", "podAnnotations.step=two"]);
    assert_eq!(authority(&namespace), before);
    assert_eq!(signs_in(&namespace, "second"), NAME);
}

/// Gives the service account an identity and a role, as the notes of the chart say, and runs a pod of it to its end.
/// Returns the role of its session.
fn signs_in(namespace: &Namespace<'_>, pod: &str) -> String {
    let script = format!(
        "eval \"$(pgentra local env --host admin)\"\n\
         pgentra local identity add {NAME} >&2\n\
         pgentra grant aks/trustedCluster/{}/{NAME} --identity {NAME} --role {NAME} --yes -o json",
        namespace.name
    );
    let inside = |words: &[&str]| {
        let deployment = format!("deployment/{SERVICE}");
        namespace.kubectl(&[&["exec", &deployment, "--"], words].concat()).done().json()
    };
    let granted = inside(&["sh", "-c", &script]);
    let status = inside(&["pgentra", "local", "status", "-o", "json"]);
    let address = &namespace.get(&["service", SERVICE])["spec"]["clusterIP"];
    let host = format!("{SERVICE}.{}.svc", namespace.name);
    namespace.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": NAME } }));
    let token =
        json!({ "serviceAccountToken": { "path": "token", "audience": "api://AzureADTokenExchange" } });
    let said = namespace.ends(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod },
            "spec": {
                "serviceAccountName": NAME,
                "restartPolicy": "Never",
                // The cluster of the tests has no DNS.
                "hostAliases": [{ "ip": address, "hostnames": [host] }],
                "volumes": [
                    { "name": "token", "projected": { "sources": [token] } },
                    { "name": "ca", "configMap": { "name": format!("{SERVICE}-ca") } },
                ],
                "containers": [{
                    "name": "app",
                    "image": image(),
                    "imagePullPolicy": "Never",
                    "args": ["query", "-h", host, "-U", NAME, "-d", "postgres", "-o", "json", "-c", "SELECT current_user"],
                    "env": [
                        { "name": "AZURE_CLIENT_ID", "value": granted["client_id"] },
                        { "name": "AZURE_TENANT_ID", "value": status["tenant_id"] },
                        { "name": "AZURE_FEDERATED_TOKEN_FILE", "value": "/run/token/token" },
                        { "name": "AZURE_AUTHORITY_HOST", "value": format!("https://{host}:8443/") },
                        { "name": "SSL_CERT_FILE", "value": "/run/ca/ca.pem" },
                        { "name": "PGSSLROOTCERT", "value": "/run/ca/ca.pem" },
                    ],
                    "volumeMounts": [
                        { "name": "token", "mountPath": "/run/token", "readOnly": true },
                        { "name": "ca", "mountPath": "/run/ca", "readOnly": true },
                    ],
                }],
            },
        }),
        "Succeeded",
    );
    said.json()[0]["rows"][0][0].as_str().unwrap().to_owned()
}

fn authority(namespace: &Namespace<'_>) -> Value {
    namespace.get(&["configmap", &format!("{SERVICE}-ca")])["data"]["ca.pem"].clone()
}
