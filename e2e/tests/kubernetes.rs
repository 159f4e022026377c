//! `pgentra kubernetes inject`: a manifest with the proxy, and the proxy that its pod would run.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;

use e2e::{Flavour, Lab, have};
use serde_json::Value;

const USAGE: i32 = 2;

/// A stream of documents: two that stay, and one that changes.
const STREAM: &str = "# Settings\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}   # as it is\n---\n\
    apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: my-app}\nspec:\n  selector: {matchLabels: {app: my-app}}\n  template:\n    \
    metadata:\n      labels: {app: my-app}\n      annotations:\n        pgentra.dev/target: postgresql://my-app@my-server/app\n    spec:\n      \
    containers:\n        - {name: my-app, image: 'my-app:1.0'}\n---\nkind: Service   # this one too\napiVersion: v1\n";

#[test]
fn a_manifest_gets_the_sidecar_once() {
    let lab = Lab::new();
    let file = lab.path().join("app.yaml");
    fs::write(&file, STREAM).unwrap();
    let path = file.to_str().unwrap();
    let once = lab.pgentra(&["kubernetes", "inject", "-f", path]).done();
    let (before, rest) = STREAM.split_once("---\n").unwrap();
    let after = rest.split_once("---\n").unwrap().1;
    assert!(once.ok().starts_with(&format!("{before}---\n")), "{once:?}");
    assert!(once.ok().ends_with(&format!("---\n{after}")), "{once:?}");
    assert_eq!(once.stderr, "deployment/my-app: sidecar added\n");

    let again = lab.pgentra(&["kubernetes", "inject", "-f", "-"]).input(once.ok()).done();
    assert_eq!(again.ok(), once.ok());
    assert_eq!(again.stderr, "deployment/my-app: unchanged\n");

    let words = [
        "kubernetes",
        "inject",
        path,
        "-o",
        "json",
        "--image",
        "registry/pgentra:2",
        "--image-pull-policy",
        "Always",
    ];
    let list = lab.pgentra(&words).done().json();
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&"List".into(), Some(3)), "{list}");
    let sidecar = &list["items"][1]["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(
        (&sidecar["image"], &sidecar["imagePullPolicy"]),
        (&"registry/pgentra:2".into(), &"Always".into())
    );

    let two = lab
        .pgentra(&["kubernetes", "inject", "-f", path, "-f", "-"])
        .input("kind: Secret\napiVersion: v1")
        .done();
    assert!(two.ok().ends_with(&format!("{after}---\nkind: Secret\napiVersion: v1")), "{two:?}");
    let none =
        lab.pgentra(&["kubernetes", "inject", "-f", "-"]).input("kind: Secret\napiVersion: v1\n").done();
    assert_eq!(none.ok(), "kind: Secret\napiVersion: v1\n");
    assert!(
        none.stderr.starts_with("nothing to do: ") && none.stderr.contains("pgentra.dev/target"),
        "{none:?}"
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let lab = Lab::new();
    let inject = |text: &str| lab.pgentra(&["kubernetes", "inject", "-f", "-"]).input(text).done();
    let changed = |from: &str, to: &str| {
        assert!(STREAM.contains(from));
        inject(&STREAM.replace(from, to))
    };
    for (from, to, words) in [
        (
            "my-app@my-server",
            "my-app:secret@my-server",
            &["deployment/my-app", "password", "inject --help"][..],
        ),
        (
            "pgentra.dev/target",
            "pgentra.dev/traget",
            &["(did you mean pgentra.dev/target?)", "there are pgentra.dev/target, port"],
        ),
        ("containers:", "hostNetwork: true\n      containers:", &["hostNetwork"]),
        ("{name: my-app, image", "{name: pgentra, image", &["has a container \"pgentra\" of its own"]),
        (
            "'my-app:1.0'",
            "'my-app:1.0', ports: [{containerPort: 5432}]",
            &["uses port 5432", "pgentra.dev/port"],
        ),
        (
            "metadata: {name: my-app}",
            "metadata: {name: my-app, annotations: {pgentra.dev/target: x}}",
            &["spec.template.metadata"],
        ),
        ("kind: Service", "kynd: Service", &["document 3", "has no kind", "helm template CHART"]),
        ("kind: Service", "kind: {{ .Values.kind }}", &["document 3 is no YAML", "helm template CHART"]),
    ] {
        let done = changed(from, to);
        assert_eq!(done.fault(USAGE, words), None, "{to}");
        assert!(!done.stderr.contains("secret"), "{done:?}");
    }
    let both = changed("postgresql://my-app@my-server/app", "x\n        pgentra.dev/port: 5432");
    assert_eq!(both.fault(USAGE, &["is no connection string", "pgentra.dev/port is not a string"]), None);
    let missing = lab.pgentra(&["kubernetes", "inject", "-f", "/nowhere.yaml"]).done();
    assert_eq!(missing.fault(USAGE, &["/nowhere.yaml"]), None);
    let bare = lab.pgentra(&["kubernetes", "inject"]).done();
    assert_eq!(bare.fault(USAGE, &["--file", "pgentra kubernetes inject --help"]), None);
}

/// A port that is free now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The arguments of the sidecar are taken by the proxy, and the variables of the container lead to it.
#[test]
fn the_containers_of_the_pod_work() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let (server, ca) = (cloud.text("/server/port"), cloud.text("/server/sslrootcert"));
    let (listen, health) = (port(), port());
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "app", "annotations": {
            "pgentra.dev/target": format!("postgresql://myVm@localhost:{server}/postgres?sslrootcert={ca}"),
            "pgentra.dev/environment": "PGHOST,PGPORT,PGUSER,PGDATABASE,DATABASE_URL",
            "pgentra.dev/port": listen.to_string(),
            "pgentra.dev/health-port": health.to_string(),
        }},
        "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
    });
    let words = ["kubernetes", "inject", "-f", "-", "-o", "json"];
    let pod = lab.pgentra(&words).input(&pod.to_string()).done().json();
    let sidecar = &pod["spec"]["initContainers"][0];
    let arguments: Vec<_> = sidecar["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(arguments[0], "proxy");
    // The log is read for the listener.
    let arguments: Vec<_> =
        arguments[1..].iter().filter(|word| **word != "--log-format=json").copied().collect();
    let proxy = lab.proxy(cloud.env("vm"), &arguments, 1);
    assert_eq!(proxy.port(), listen.to_string());
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap().iter();
    let env: BTreeMap<_, _> = env.map(|entry| (text(entry, "name"), text(entry, "value"))).collect();
    assert_eq!(env.len(), 5, "{env:?}");
    let url = env["DATABASE_URL"].clone();
    let asked = lab.program(&["psql", "-Atc", "SELECT current_user"]).envs(env).done();
    assert_eq!(asked.ok(), "myVm\n");
    assert_eq!(lab.program(&["psql", &url, "-Atc", "SELECT current_user"]).done().ok(), "myVm\n");
    lab.program(&["curl", "-sSf", &format!("http://127.0.0.1:{health}/startup")]).done().ok();
}

/// The second step of `docs/kubernetes-roles.md`. The role comes with the administrator, and cannot be there before.
#[test]
fn the_identity_of_the_operator_becomes_an_administrator() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let run = |command: &str| lab.shell(command).envs(cloud.env("admin")).done();
    let account = "aks/myCluster/pgentra/pgentra-operator";
    let add = |name: &str| format!("pgentra identity server-admin add {name} --server mydemoserver");
    run("pgentra local identity add my-operator").ok();
    run(&format!("pgentra identity assign {account} --identity my-operator")).ok();
    run(&add("my-operator")).ok();
    let list = run("pgentra role list -o json").json();
    let role = list["roles"].as_array().unwrap().iter().find(|role| role["name"] == "my-operator").cloned();
    assert!(role.as_ref().is_some_and(|role| role["admin"] == true), "{list}");

    run("pgentra local identity add granted").ok();
    run(&format!("pgentra grant {account} --identity granted --role granted --yes")).ok();
    assert_eq!(run(&add("granted")).fault(5, &["Updating an existing principal isn't supported"]), None);
}
