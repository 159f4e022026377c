//! The real Azure SDKs and real drivers, configured by `pgentra local env` alone.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::path::{Path, PathBuf};

use e2e::{Cloud, Flavour, Lab, client, example, have};

const DEFAULT: &str = "DefaultAzureCredential";
const MANAGED: &str = "ManagedIdentityCredential";
const WORKLOAD: &str = "WorkloadIdentityCredential";

/// Credentials for each host, and the role that they sign in as.
const CASES: [(&str, &[&str], &str); 4] = [
    ("vm", &[DEFAULT, MANAGED], "myVm"),
    ("user-assigned", &[DEFAULT, MANAGED], "myIdentity"),
    ("app-service", &[DEFAULT, MANAGED], "myVm"),
    ("aks", &[DEFAULT, WORKLOAD], "myIdentity"),
];

fn own(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name);
    path.into_os_string().into_string().unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn python() -> String {
    text(&client("venv/bin/python"))
}

fn node() -> String {
    text(&client("venv/bin/node"))
}

/// Signs in on every host with the program that `words` makes of a credential.
fn check(lab: &Lab, cloud: &Cloud<'_>, words: impl Fn(&str) -> Vec<String>) {
    for (host, credentials, role) in CASES {
        let variables = cloud.env(host);
        assert_eq!(variables["PGSSLMODE"], "verify-full");
        for credential in credentials {
            let words = words(credential);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let done = lab.program(&words).envs(variables.clone()).done();
            assert_eq!(done.ok().trim_end(), role, "{host}, {credential}");
        }
    }
}

#[test]
fn python_signs_in() {
    if !have(&["python"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for driver in ["psycopg", "asyncpg"] {
        check(&lab, &cloud, |credential| {
            vec![python(), own("login.py"), driver.to_owned(), credential.to_owned()]
        });
    }
}

#[test]
fn node_signs_in() {
    if !have(&["node"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    check(&lab, &cloud, |credential| {
        vec![node(), own("login.mjs"), text(&client("")), credential.to_owned()]
    });
}

/// A JVM trusts the local authority by `JAVA_TOOL_OPTIONS`, in which the user's own options stay.
#[test]
fn java_signs_in() {
    if !have(&["java-program"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let name = cloud.text("/name");
    let script = "javac -cp \"$1/*\" -d classes \"$2\"
        for host in vm app-service service-fabric aks client-secret; do
            eval \"$(pgentra local env --name \"$3\" --host $host --shell sh)\"
            java -cp \"classes:$1/*\" -Donly=JDBC Clients $host
        done
        java -XshowSettings:properties -version 2>&1 | grep -F 'own.option ='
        eval \"$(pgentra local env --unset --shell sh)\"
        echo \"$JAVA_TOOL_OPTIONS\"";
    let jars = text(&client("jars"));
    let source = own("on_hosts/Clients.java");
    let words = ["bash", "-euo", "pipefail", "-c", script, "script", &jars, &source, &name];
    let done = lab.program(&words).env("JAVA_TOOL_OPTIONS", "-Down.option=yes").within(180).done();
    let lines = done.ok().lines().collect::<Vec<_>>();
    let role = |role: &str| format!("{{\"client\":\"JDBC\",\"role\":\"{role}\"}}");
    let roles = ["myVm", "myVm", "myVm", "myIdentity", "myApp"].map(role);
    assert_eq!(lines[..5], roles);
    assert_eq!(lines[5].trim(), "own.option = yes");
    assert_eq!(lines[6..], ["-Down.option=yes"]);
}

#[test]
fn they_sign_in_to_single_server() {
    if !have(&["python", "node"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Single, &[]);
    let variables = cloud.env("vm");
    for words in [
        vec![python(), own("login.py"), "psycopg".to_owned(), DEFAULT.to_owned()],
        vec![node(), own("login.mjs"), text(&client("")), MANAGED.to_owned()],
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for user in ["myVm", "myVm@mydemoserver"] {
            let done = lab.program(&words).envs(variables.clone()).env("PGUSER", user).done();
            assert_eq!(done.ok().trim_end(), "myVm");
        }
    }
}

/// Every kind of credential that the emulator serves, with the SDKs.
#[test]
fn they_get_every_kind_of_token() {
    if !have(&["python", "node"]) {
        return;
    }
    let lab = Lab::new();
    let serve: PathBuf = example("pgentra-emulator", "serve");
    let done = lab.program(&[&python(), &own("python_identity.py"), &text(&serve)]).done();
    assert!(
        done.ok().lines().count() >= 10 && done.stdout.lines().all(|line| line.ends_with(": ok")),
        "{done:?}"
    );
    // it finds @azure/identity from its current folder
    let script =
        format!("cd {} && {} {} {}", text(&client("")), node(), own("node_identity.mjs"), text(&serve));
    let done = lab.shell(&script).done();
    assert!(
        done.ok().lines().count() >= 10 && done.stdout.lines().all(|line| line.ends_with(": ok")),
        "{done:?}"
    );
}
