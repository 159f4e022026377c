//! A local cloud that trusts the cluster, and what pods are told about it.

use std::fs;
use std::path::PathBuf;

use e2e::{Cloud, Flavour, Lab};
use serde_json::{Value, json};

use crate::kubernetes::{HERE, Namespace, kubectl};

/// The name under which pods reach the local cloud.
pub(crate) const CLOUD: &str = "cloud.test";
/// The database role of the service account.
pub(crate) const ROLE: &str = "my-app";
/// Where the webhook of Azure mounts the token of the service account.
const TOKENS: &str = "/var/run/secrets/azure/tokens";

/// A local cloud with the options by which pods of the cluster reach it and have identities in it.
pub(crate) fn cloud(lab: &Lab) -> Cloud<'_> {
    let (issuer, keys) = keys(lab);
    lab.cloud(
        Flavour::Flexible,
        &[
            "--danger-listen-beyond-loopback",
            HERE,
            "--host-name",
            CLOUD,
            "--trust-cluster",
            &issuer,
            keys.to_str().unwrap(),
        ],
    )
}

/// The issuer of the cluster's service account tokens, and a file with its keys.
pub(crate) fn keys(lab: &Lab) -> (String, PathBuf) {
    let keys = lab.path().join("keys.json");
    fs::write(&keys, kubectl(lab, &["get", "--raw", "/openid/v1/jwks"]).done().ok()).unwrap();
    let discovery = kubectl(lab, &["get", "--raw", "/.well-known/openid-configuration"]).done().json();
    (discovery["issuer"].as_str().unwrap().to_owned(), keys)
}

/// Gives the service account the identity `another`, which is made, and the role [`ROLE`]. Returns its client id.
pub(crate) fn grant(lab: &Lab, cloud: &Cloud<'_>, namespace: &str, account: &str) -> String {
    grant_role(lab, cloud, (namespace, account), ROLE)
}

/// The same, with a role of this name.
pub(crate) fn grant_role(
    lab: &Lab,
    cloud: &Cloud<'_>,
    (namespace, account): (&str, &str),
    role: &str,
) -> String {
    let script = format!(
        "pgentra local identity add another >&2\n\
         pgentra grant aks/trustedCluster/{namespace}/{account} --identity another --role {role} --yes -o json"
    );
    let granted = lab.shell(&script).envs(cloud.env("admin")).done().json();
    assert_eq!((&granted["assigned"], &granted["created"]), (&json!(true), &json!(true)), "{granted}");
    granted["client_id"].as_str().unwrap().to_owned()
}

/// What the webhook of Azure and an administrator of the cluster give to a container: variables, mounts and volumes
/// (Azure/azure-workload-identity, `pkg/webhook`).
pub(crate) struct Given {
    pub(crate) env: Value,
    pub(crate) mounts: Value,
    pub(crate) volumes: Value,
    pub(crate) aliases: Value,
    /// A connection string of the server, for pods.
    pub(crate) server: String,
}

/// Makes the ConfigMap with the authority of the local cloud, and says how pods use it all.
pub(crate) fn given(namespace: &Namespace<'_>, cloud: &Cloud<'_>, client_id: &str) -> Given {
    let here = cloud.env("aks");
    let authority = here["AZURE_AUTHORITY_HOST"].replace("localhost", CLOUD);
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "pki" },
        "data": { "ca.pem": fs::read_to_string(&here["PGSSLROOTCERT"]).unwrap() },
    }));
    // A week, because a test moves the clock of the local cloud by days and not that of the cluster.
    let token = json!({ "serviceAccountToken": {
        "path": "azure-identity-token", "expirationSeconds": 604_800, "audience": "api://AzureADTokenExchange",
    }});
    Given {
        env: json!([
            { "name": "AZURE_CLIENT_ID", "value": client_id },
            { "name": "AZURE_TENANT_ID", "value": here["AZURE_TENANT_ID"] },
            { "name": "AZURE_FEDERATED_TOKEN_FILE", "value": format!("{TOKENS}/azure-identity-token") },
            { "name": "AZURE_AUTHORITY_HOST", "value": authority },
            { "name": "SSL_CERT_FILE", "value": "/etc/pki/ca.pem" },
        ]),
        mounts: json!([
            { "name": "azure-identity-token", "mountPath": TOKENS, "readOnly": true },
            { "name": "pki", "mountPath": "/etc/pki", "readOnly": true },
        ]),
        volumes: json!([
            { "name": "azure-identity-token", "projected": { "defaultMode": 420, "sources": [token] } },
            { "name": "pki", "configMap": { "name": "pki" } },
        ]),
        aliases: json!([{ "ip": HERE, "hostnames": [CLOUD] }]),
        server: format!("postgresql://{CLOUD}:{}/postgres?sslrootcert=/etc/pki/ca.pem", here["PGPORT"]),
    }
}

/// The version of the image and the chart.
pub(crate) fn image() -> String {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/pgentra-proxy/Chart.yaml");
    let chart = fs::read_to_string(chart).unwrap();
    let version = chart.lines().find_map(|line| line.strip_prefix("appVersion: ")).unwrap();
    format!("pgentra:{}", version.trim_matches('"'))
}
