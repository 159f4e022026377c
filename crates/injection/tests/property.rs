//! What holds for every pod.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use pgentra_injection::{NamespaceDefaults, Review, Sidecar, SidecarChange, inject_manifest, inject_object};
use proptest::prelude::*;
use serde_json::{Value, json};

fn sidecar() -> Sidecar {
    let text = json!({
        "image": "pgentra:0.1.0",
        "env": [{ "name": "HTTPS_PROXY", "value": "http://proxy:3128" }],
        "volumes": [{ "name": "pki", "configMap": { "name": "pki" } }],
        "volumeMounts": [{ "name": "pki", "mountPath": "/etc/pki" }],
        "hostAliases": [{ "ip": "192.0.2.1", "hostnames": ["one.test"] }],
    });
    Sidecar::from_json(&text.to_string()).unwrap()
}

/// A variable of a container: some have the names that the sidecar sets.
fn variable() -> impl Strategy<Value = Value> {
    (prop::sample::select(vec!["PGHOST", "PGPORT", "PGUSER", "DATABASE_URL", "A", "B"]), "[ -~]{0,12}")
        .prop_map(|(name, value)| json!({ "name": name, "value": value }))
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let ports = prop::collection::vec(prop::sample::select(vec![80, 5432, 9432]), 0..2);
    (prop::option::of(prop::collection::vec(variable(), 0..4)), ports).prop_map(move |(env, ports)| {
        let mut container = json!({ "name": name, "image": "app:1" });
        if let Some(mut env) = env {
            // Kubernetes takes the last of several; a real pod has each once.
            env.sort_by_key(|entry| entry["name"].to_string());
            env.dedup_by_key(|entry| entry["name"].clone());
            container["env"] = json!(env);
        }
        if !ports.is_empty() {
            let ports: Vec<_> = ports.into_iter().map(|port| json!({ "containerPort": port })).collect();
            container["ports"] = json!(ports);
        }
        container
    })
}

fn target() -> impl Strategy<Value = String> {
    let user = prop::sample::select(vec!["", "my-app@", "a%24(PGHOST)@", "dba%40example.com@"]);
    let database = prop::sample::select(vec!["", "app", "my%20db", "y"]);
    (user, database).prop_map(|(user, database)| format!("postgresql://{user}one,two/{database}"))
}

fn annotations() -> impl Strategy<Value = Value> {
    let port = prop::option::of(prop::sample::select(vec!["5432", "6432", "9432"]));
    let environment =
        prop::option::of(prop::sample::select(vec!["none", "DATABASE_URL", "PGHOST,PGUSER,DATABASE_URL"]));
    let containers = prop::option::of(prop::sample::select(vec!["app", "app,init"]));
    (target(), port, environment, containers, any::<bool>()).prop_map(
        |(target, port, environment, containers, identity)| {
            let mut all = json!({ "pgentra.dev/target": target, "other.dev/a": "b" });
            for (name, value) in [("port", port), ("environment", environment), ("containers", containers)] {
                if let Some(value) = value {
                    all[format!("pgentra.dev/{name}")] = json!(value);
                }
            }
            if !identity {
                all["pgentra.dev/workload-identity"] = json!("false");
            }
            all
        },
    )
}

prop_compose! {
    fn pod()(
        annotations in annotations(),
        app in container("app"),
        init in prop::option::of(container("init")),
        labels in prop::option::of(prop::sample::select(vec![
            json!({}), json!({ "app": "a" }), json!({ "azure.workload.identity/use": "true" }),
        ])),
        volumes in prop::option::of(Just(json!([{ "name": "pki", "emptyDir": {} }, { "name": "b", "emptyDir": {} }]))),
    ) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "app", "annotations": annotations },
            "spec": { "containers": [app] },
        });
        if let Some(init) = init {
            pod["spec"]["initContainers"] = json!([init]);
        }
        if let Some(labels) = labels {
            pod["metadata"]["labels"] = labels;
        }
        if let Some(volumes) = volumes {
            pod["spec"]["volumes"] = volumes;
        }
        pod
    }
}

/// What is left of a list, in its order.
fn is_part(part: &[Value], whole: &[Value]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|one| whole.any(|other| other == one))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

proptest! {
    #[test]
    fn a_second_run_changes_nothing(mut pod in pod()) {
        let before = pod.clone();
        match inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()) {
            Ok(reports) => {
                prop_assert_eq!(reports[0].change, SidecarChange::Added);
                let once = pod.clone();
                let again = inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).unwrap();
                prop_assert_eq!(again[0].change, SidecarChange::Unchanged);
                prop_assert_eq!(pod, once);
            }
            Err(_) => prop_assert_eq!(pod, before, "a refusal changes nothing"),
        }
    }

    #[test]
    fn what_is_there_is_kept(mut pod in pod()) {
        let before = pod.clone();
        if inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).is_ok() {
            for field in ["initContainers", "containers"] {
                for container in list(&before["spec"], field) {
                    let now = list(&pod["spec"], field).iter().find(|one| one["name"] == container["name"]).unwrap();
                    prop_assert!(is_part(list(container, "env"), list(now, "env")), "{} {}", container, now);
                    let names: Vec<_> = list(now, "env").iter().map(|one| one["name"].to_string()).collect();
                    let mut once = names.clone();
                    once.sort();
                    once.dedup();
                    prop_assert_eq!(once.len(), names.len(), "{}", now);
                }
            }
            prop_assert!(is_part(list(&before["spec"], "volumes"), list(&pod["spec"], "volumes")));
        }
    }

    /// However its annotations change, a pod becomes what it would have become at once; and taken out, it is as before.
    #[test]
    fn a_change_leaves_nothing_of_the_earlier(first in pod(), second in annotations()) {
        let mut pod = first.clone();
        if inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).is_ok() {
            let mut fresh = first.clone();
            fresh["metadata"]["annotations"] = second.clone();
            let mut changed = pod.clone();
            let record = pod["metadata"]["annotations"]["pgentra.dev/injected"].clone();
            changed["metadata"]["annotations"] = second;
            changed["metadata"]["annotations"]["pgentra.dev/injected"] = record;
            let at_once = inject_object(&mut fresh, &NamespaceDefaults::default(), &sidecar());
            let later = inject_object(&mut changed, &NamespaceDefaults::default(), &sidecar());
            prop_assert_eq!(at_once.is_ok(), later.is_ok());
            if at_once.is_ok() {
                prop_assert_eq!(sorted(changed), sorted(fresh));
            }

            pod["metadata"]["annotations"]["pgentra.dev/inject"] = json!("false");
            let reports = inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).unwrap();
            prop_assert_eq!(reports[0].change, SidecarChange::Removed);
            let mut out = first;
            out["metadata"]["annotations"]["pgentra.dev/inject"] = json!("false");
            prop_assert_eq!(without_empty(pod), without_empty(out));
        }
    }

    /// Another webhook adds to the sidecar, and an API server adds defaults: both stay.
    #[test]
    fn what_others_add_to_the_sidecar_stays(mut pod in pod()) {
        if inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).is_ok() {
            let sidecar_of = |pod: &Value| list(&pod["spec"], "initContainers")[0].clone();
            let mut container = sidecar_of(&pod);
            container["env"].as_array_mut().unwrap().push(json!({ "name": "AZURE_CLIENT_ID", "value": "x" }));
            container["volumeMounts"].as_array_mut().unwrap().push(json!({ "name": "token", "mountPath": "/token" }));
            container["startupProbe"]["successThreshold"] = json!(1);
            container["ports"][0]["protocol"] = json!("TCP");
            pod["spec"]["initContainers"][0] = container.clone();
            let again = inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).unwrap();
            prop_assert_eq!(again[0].change, SidecarChange::Unchanged);
            prop_assert_eq!(sidecar_of(&pod), container.clone());

            pod["metadata"]["annotations"]["pgentra.dev/target"] = json!("postgresql://three/");
            inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).unwrap();
            let now = sidecar_of(&pod);
            prop_assert!(is_part(list(&container, "env"), list(&now, "env")));
            prop_assert_eq!(&now["args"][4], "postgresql://three/");
        }
    }

    /// The patch of the webhook makes of the pod what the command makes of it.
    #[test]
    fn the_webhook_does_what_the_command_does(mut pod in pod()) {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "u", "namespace": "shop", "object": pod },
        });
        let review = Review::read(body.to_string().as_bytes()).unwrap();
        let answer = review.answer(&NamespaceDefaults::default(), &sidecar()).review["response"].clone();
        let done = inject_object(&mut pod.clone(), &NamespaceDefaults::default(), &sidecar());
        prop_assert_eq!(&answer["allowed"], &json!(done.is_ok()));
        if done.is_ok() {
            let patch = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, answer["patch"].as_str().unwrap());
            let patch: json_patch::Patch = serde_json::from_slice(&patch.unwrap()).unwrap();
            let mut patched = pod.clone();
            json_patch::patch(&mut patched, &patch).unwrap();
            inject_object(&mut pod, &NamespaceDefaults::default(), &sidecar()).unwrap();
            prop_assert_eq!(patched, pod);
        } else {
            let code = answer["status"]["code"].as_u64().unwrap();
            prop_assert!(code == 400 || code == 422, "{}", answer);
        }
    }

    /// A file of any text: no panic, and documents without pods keep their bytes.
    #[test]
    fn other_text_stays(text in "(---\n|a: [1-9]\n|kind: [A-Z]\n| - b\n|#x\n|\\PC{0,8}\n){0,12}") {
        if let Ok(done) = inject_manifest(&text, &sidecar()) {
            prop_assert_eq!(done.text, text);
        }
    }

    #[test]
    fn strings_of_a_manifest_stay_the_same(text in "\\PC{0,40}", line in "[ -~\n\t]{0,40}") {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "app", "annotations": { "pgentra.dev/target": "postgresql://one/", "note": line } },
            "spec": { "containers": [{ "name": "app", "image": "app:1", "args": [text] }] },
        });
        // A map in flow style, which JSON is too, behind a comment: YAML is written.
        let done = inject_manifest(&format!("# YAML\n{pod}"), &sidecar()).unwrap();
        let again = inject_manifest(&done.text, &sidecar()).unwrap();
        prop_assert_eq!(again.text, done.text);
        prop_assert_eq!(&again.objects[0]["spec"]["containers"][0]["args"][0], &json!(text));
        prop_assert_eq!(&again.objects[0]["metadata"]["annotations"]["note"], &json!(line));
    }
}

/// Without the order of the variables: a variable that is wanted again is put in front.
fn sorted(mut pod: Value) -> Value {
    for field in ["initContainers", "containers"] {
        for container in pod["spec"][field].as_array_mut().into_iter().flatten() {
            if let Some(env) = container["env"].as_array_mut() {
                env.sort_by_key(|entry| entry["name"].to_string());
            }
        }
    }
    without_empty(pod)
}

/// Without empty lists and maps: one that was empty before may be gone.
fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| {
        value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(|map| map.is_empty())
    };
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(list) => list.into_iter().map(without_empty).collect(),
        value => value,
    }
}
