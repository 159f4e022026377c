//! A local cloud for other machines, and for the service accounts of another cluster. Here that cluster is the one of a
//! second local cloud; `e2e/cluster` has a real one.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::TcpListener;

use e2e::{Flavour, Lab};
use serde_json::json;

/// An address of this machine that is not the local cloud's own.
const ADDRESS: &str = "127.0.0.2";

#[test]
fn service_accounts_of_another_cluster_sign_in_from_another_machine() {
    let lab = Lab::new();
    let other = lab.cloud(Flavour::Flexible, &["--name", "other"]);
    let there = other.env("aks");
    let shown =
        lab.pgentra(&["identity", "show", "identity/myIdentity", "-o", "json"]).envs(other.env("admin"));
    let shown = shown.done().json();
    let issuer = shown["federated_credentials"][0]["issuer"].as_str().unwrap().to_owned();
    let keys = lab.path().join("keys.json");
    let fetch = ["curl", "-sSf", "--cacert", &there["PGSSLROOTCERT"], &format!("{issuer}openid/v1/jwks")];
    fs::write(&keys, lab.program(&fetch).done().ok()).unwrap();

    let keys = keys.to_str().unwrap();
    let reach = [
        "--danger-listen-beyond-loopback",
        ADDRESS,
        "--host-name",
        ADDRESS,
        "--trust-cluster",
        &issuer,
        keys,
    ];
    let cloud = lab.cloud(Flavour::Flexible, &reach);
    let grant = "pgentra local identity add another >&2\n\
        pgentra grant aks/trustedCluster/default/my-service-account --identity another --role my-app --yes -o json";
    let granted = lab.shell(grant).envs(cloud.env("admin")).done().json();
    assert_eq!(granted["assigned"], json!(true), "{granted}");

    // What a pod of the other cluster has, and how it reaches this machine.
    let mut pod = cloud.env("aks");
    for name in ["AZURE_AUTHORITY_HOST", "PGHOST"] {
        let value = pod[name].replace("localhost", ADDRESS);
        pod.insert(name.to_owned(), value);
    }
    pod.insert("PGUSER".to_owned(), "my-app".to_owned());
    pod.insert("AZURE_CLIENT_ID".to_owned(), granted["client_id"].as_str().unwrap().to_owned());
    let own_token =
        pod.insert("AZURE_FEDERATED_TOKEN_FILE".to_owned(), there["AZURE_FEDERATED_TOKEN_FILE"].clone());
    let query = ["query", "--token-timeout", "2s", "-o", "json", "-c", "SELECT current_user"];
    let answer = lab.pgentra(&query).envs(pod.clone()).done().json();
    assert_eq!(answer[0]["rows"][0][0], "my-app");

    // Discovery names the host that the client used.
    let discovery = format!("{}common/.well-known/openid-configuration", pod["AZURE_AUTHORITY_HOST"]);
    let found = lab.program(&["curl", "-sSf", "--cacert", &pod["PGSSLROOTCERT"], &discovery]).done().json();
    assert!(found["token_endpoint"].as_str().unwrap().starts_with(&pod["AZURE_AUTHORITY_HOST"]), "{found}");

    // The local cloud's own cluster has another issuer, for which nothing is registered.
    let own_token = own_token.unwrap();
    pod.insert("AZURE_FEDERATED_TOKEN_FILE".to_owned(), own_token.clone());
    let refused = lab.pgentra(&query).envs(pod.clone()).done();
    assert_eq!(refused.fault(3, &["AADSTS700211"]), None);

    // A token of the same issuer that none of the keys in the file has signed.
    let forged = lab.path().join("forged");
    let [token, own_token] =
        [&there["AZURE_FEDERATED_TOKEN_FILE"], &own_token].map(|it| fs::read_to_string(it).unwrap());
    let ((signed, _), (_, signature)) =
        (token.rsplit_once('.').unwrap(), own_token.rsplit_once('.').unwrap());
    fs::write(&forged, format!("{signed}.{signature}")).unwrap();
    pod.insert("AZURE_FEDERATED_TOKEN_FILE".to_owned(), forged.display().to_string());
    let refused = lab.pgentra(&query).envs(pod).done();
    fs::remove_file(forged).unwrap();
    assert_eq!(refused.fault(3, &["AADSTS700027"]), None);
}

#[test]
fn an_authority_that_is_given_signs_for_postgresql_and_entra() {
    let lab = Lab::new();
    let make =
        "openssl req -x509 -newkey rsa:2048 -noenc -subj '/CN=an authority' -keyout ca.key -out ca.crt";
    lab.shell(&format!("cd {} && {make}", lab.path().display())).done().ok();
    let [certificate, key] = ["ca.crt", "ca.key"].map(|name| lab.path().join(name).display().to_string());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let cloud = lab.cloud(Flavour::Flexible, &["--entra-port", &port, "--authority", &certificate, &key]);
    let mut environment = cloud.env("aks");
    assert!(environment["AZURE_AUTHORITY_HOST"].ends_with(&format!(":{port}/")), "{environment:?}");
    for name in ["SSL_CERT_FILE", "PGSSLROOTCERT"] {
        environment.insert(name.to_owned(), certificate.clone());
    }
    let query = ["query", "-o", "json", "-c", "SELECT current_user"];
    let role = environment["PGUSER"].clone();
    let answer = lab.pgentra(&query).envs(environment).done().json();
    assert_eq!(answer[0]["rows"][0][0], json!(role));
    fs::remove_file(key).unwrap();
}

#[test]
fn what_cannot_be_reached_or_trusted_is_refused() {
    let lab = Lab::new();
    let empty = lab.path().join("empty.json");
    fs::write(&empty, "{\"keys\": []}").unwrap();
    let empty = empty.to_str().unwrap();
    for (words, said) in [
        (
            &["--trust-cluster", "https://kubernetes.default.svc", "/nowhere"][..],
            "/nowhere has no keys of a cluster",
        ),
        (&["--trust-cluster", "https://kubernetes.default.svc", empty], "has no keys of a cluster"),
        (&["--host-name", "a_b"], "not a host name or an address"),
        (&["--authority", "/nowhere", "/nowhere"], "are no certificate authority with its key"),
        (&["--danger-listen-beyond-loopback", "192.0.2.1"], "192.0.2.1"),
    ] {
        let refused = lab.pgentra(&[&["local", "up", "--name", "refused"], words].concat()).done();
        assert!(!refused.status.success(), "{refused:?}");
        assert!(refused.stderr.contains(said) && refused.stderr.contains("hint: "), "{refused:?}");
    }
}
