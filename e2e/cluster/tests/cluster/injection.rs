//! The admission webhook: pods that ask for the proxy by an annotation.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use e2e::{Done, Lab, Run};
use eventually::{eventually_blocking, holds};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chart::HELM;
use crate::kubernetes::{Namespace, ROLLOUT, helm, kubectl};
use crate::stage::{Given, ROLE, cloud, given, grant};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/pgentra-operator");
/// What kubectl says of a pod that the webhook refuses.
const REFUSED: &str = r#"admission webhook "pods.pgentra.dev" denied the request: "#;

/// The operator in a namespace of its own. What Azure's webhook and the administrator of a cluster would give to pods is given to
/// every sidecar.
struct Operator<'lab> {
    namespace: Namespace<'lab>,
}

impl<'lab> Operator<'lab> {
    fn install(lab: &'lab Lab, name: &str, given: &Given, lifetime: u32) -> Self {
        let namespace = Namespace::new(lab, name);
        let values = json!({
            "image": { "pullPolicy": "Never" },
            "workloadIdentity": { "enabled": false },
            "roles": { "enabled": false },
            "injection": {
                "image": { "pullPolicy": "Never" },
                "certificateLifetime": lifetime,
                "extraEnv": given.env,
                "extraVolumes": given.volumes,
                "extraVolumeMounts": given.mounts,
                "hostAliases": given.aliases,
            },
        });
        let file = lab.path().join("operator.json");
        fs::write(&file, values.to_string()).unwrap();
        let operator = Self { namespace };
        operator.helm(&[
            "install",
            "pgentra",
            CHART,
            "--values",
            file.to_str().unwrap(),
            "--wait",
            "--timeout",
            "3m",
        ]);
        operator
    }

    fn helm(&self, words: &[&str]) {
        let words = [words, &["--namespace", &self.namespace.name]].concat();
        let done = helm(self.namespace.lab, HELM[1], &words).done();
        let logs = || {
            self.namespace.kubectl(&["logs", "--selector", "app.kubernetes.io/name=pgentra-operator"]).done()
        };
        assert!(done.status.success(), "{done:?}\n{:?}", logs());
    }

    fn uninstall(&self) {
        // Its pods may still stop: they have a namespace of their own.
        self.helm(&["uninstall", "pgentra"]);
    }

    fn scale(&self, replicas: usize) {
        let words = ["scale", "deployment/pgentra-pgentra-operator", &format!("--replicas={replicas}")];
        self.namespace.kubectl(&words).done().ok();
        eventually_blocking(ROLLOUT, "the replicas of the webhook", || {
            let pods = self.namespace.get(&["pods"]);
            let ready = |pod: &&Value| pod["status"]["containerStatuses"][0]["ready"] == true;
            let pods = pods["items"].as_array().unwrap().clone();
            holds((), |()| pods.len() == replicas && pods.iter().filter(ready).count() == replicas)
        });
    }

    fn answers(&self, answer: &str) -> u64 {
        self.metric(&format!("pgentra_operator_webhook_answers_total{{answer=\"{answer}\"}}"))
    }

    fn injected(&self) -> u64 {
        self.answers("injected")
    }

    /// A metric, added up over the replicas.
    fn metric(&self, name: &str) -> u64 {
        let pods = self.namespace.get(&["pods"]);
        let name_of = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        let pods: Vec<_> = pods["items"].as_array().unwrap().iter().map(name_of).collect();
        let of = |pod: &String| {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}:9432/proxy/metrics", self.namespace.name);
            let text = kubectl(self.namespace.lab, &["get", "--raw", &path]).done().ok().to_owned();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.split(' ').nth(1)?.parse().ok());
            line.unwrap_or(0)
        };
        pods.iter().map(of).sum()
    }
}

/// The target of the annotation.
fn target(given: &Given) -> String {
    given.server.replace("postgresql://", &format!("postgresql://{ROLE}@"))
}

/// An application that asks PostgreSQL who it is, and has one annotation more than it had.
fn application(name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "annotations": { "pgentra.dev/target": target } },
        "spec": template(),
    })
}

fn template() -> Value {
    json!({
        "restartPolicy": "Never",
        "serviceAccountName": ROLE,
        "containers": [{
            "name": "app", "image": "client:1", "imagePullPolicy": "Never",
            "args": ["-At", "-c", "SELECT current_user"],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
            },
        }],
    })
}

fn apply<'lab>(namespace: &Namespace<'lab>, object: &Value, more: &[&str]) -> Run<'lab> {
    namespace.kubectl(&[&["apply", "--filename", "-"], more].concat()).input(&object.to_string())
}

fn account(namespace: &Namespace<'_>) {
    namespace.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ROLE } }));
}

/// What the application of a pod or of a Job wrote.
fn logs<'lab>(namespace: &Namespace<'lab>, of: &str) -> Done<'lab> {
    namespace.kubectl(&["logs", of, "--container", "app"]).done()
}

/// Prints what a user types, with the time since the start.
fn typed(start: Instant, what: &str) {
    println!("{:5.1} s  {what}", start.elapsed().as_secs_f64());
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn one_annotation_is_enough_for_a_session() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "annotated");
    let level = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&lab, &["label", "namespace", &namespace.name, level]).done().ok();
    let client_id = grant(&lab, &cloud, &namespace.name, ROLE);
    let given = given(&namespace, &cloud, &client_id);
    account(&namespace);

    let start = Instant::now();
    let install = "helm install pgentra deploy/helm/pgentra-operator --namespace pgentra --create-namespace";
    typed(start, install);
    let operator = Operator::install(&lab, "webhook", &given, 90 * 24 * 3600);
    typed(start, "kubectl apply -f app.yaml");
    let pod = application("app", &target(&given));
    apply(&namespace, &pod, &[]).done().ok();
    let wait = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/app", "--timeout=2m"];
    let waited = namespace.kubectl(&wait).done();
    let sidecar = || namespace.kubectl(&["logs", "app", "--container", "pgentra"]).done();
    assert!(waited.status.success(), "{waited:?}\n{:?}\n{:?}", namespace.get(&["pod", "app"]), sidecar());
    typed(start, "kubectl logs app");
    let said = logs(&namespace, "app");
    assert_eq!(said.ok().trim_end(), ROLE, "{said:?}");
    typed(start, said.ok().trim_end());

    let made = namespace.get(&["pod", "app"]);
    assert_eq!(made["spec"]["initContainers"].as_array().map(Vec::len), Some(1), "{made}");
    assert_eq!(made["metadata"]["labels"]["azure.workload.identity/use"], "true", "{made}");
    let state = |field: &str| made["status"][field][0]["state"]["terminated"]["exitCode"].clone();
    println!(
        "exit codes: {} of the sidecar, {} of the application",
        state("initContainerStatuses"),
        state("containerStatuses")
    );

    workloads_complete(&namespace, &target(&given));
    a_namespace_asks_for_its_pods(&namespace, &target(&given));
    what_cannot_work_is_refused(&namespace, &target(&given));
    a_later_webhook_sees_the_label(&operator, &namespace, &target(&given));
    assert!(operator.answers("injected") >= 4, "{}", operator.answers("injected"));
    assert!(operator.answers("refused") >= 4, "{}", operator.answers("refused"));
    operator.uninstall();
}

/// The end of the sidecar is not a Job's to wait for.
fn workloads_complete(namespace: &Namespace<'_>, target: &str) {
    let template =
        json!({ "metadata": { "annotations": { "pgentra.dev/target": target } }, "spec": template() });
    let job = json!({ "backoffLimit": 0, "template": template });
    namespace.apply(
        &json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "report" }, "spec": job }),
    );
    namespace.apply(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "nightly" },
        "spec": { "schedule": "0 4 * * *", "jobTemplate": { "spec": job } },
    }));
    namespace.kubectl(&["create", "job", "tonight", "--from=cronjob/nightly"]).done().ok();
    for name in ["report", "tonight"] {
        let job = format!("job/{name}");
        let completed = namespace.kubectl(&["wait", "--for=condition=Complete", &job, "--timeout=2m"]).done();
        assert!(completed.status.success(), "{completed:?}\n{:?}", logs(namespace, &job));
        assert_eq!(logs(namespace, &job).ok().trim_end(), ROLE);
    }
}

/// The label asks for all pods, and the annotation of the namespace names the server.
fn a_namespace_asks_for_its_pods(namespace: &Namespace<'_>, target: &str) {
    let name = namespace.name.as_str();
    let lab = namespace.lab;
    kubectl(lab, &["label", "namespace", name, "pgentra.dev/inject=true"]).done().ok();
    kubectl(lab, &["annotate", "namespace", name, &format!("pgentra.dev/target={target}")]).done().ok();
    let mut pod = application("plain", target);
    pod["metadata"]["annotations"] = json!({});
    let said = |pod: &Value| {
        let made = apply(namespace, pod, &["--dry-run=server", "--output", "json"]).done().json();
        made["spec"]["initContainers"][0]["name"].clone()
    };
    // The API server learns of the label a moment later.
    eventually_blocking(ROLLOUT, "a pod without an annotation gets the sidecar", || {
        holds(said(&pod), |name| name == "pgentra")
    });
    pod["metadata"]["annotations"]["pgentra.dev/inject"] = json!("false");
    assert_eq!(said(&pod), Value::Null);
    kubectl(lab, &["label", "namespace", name, "pgentra.dev/inject-"]).done().ok();
    kubectl(lab, &["annotate", "namespace", name, "pgentra.dev/target-"]).done().ok();
}

fn what_cannot_work_is_refused(namespace: &Namespace<'_>, target: &str) {
    let change = |change: &dyn Fn(&mut Value)| {
        let mut pod = application("refused", target);
        change(&mut pod);
        pod
    };
    for (pod, why) in [
        (
            change(&|pod| pod["spec"]["containers"][0]["name"] = json!("pgentra")),
            "has a container \"pgentra\" of its own",
        ),
        (change(&|pod| pod["spec"]["hostNetwork"] = json!(true)), "the pod has hostNetwork"),
        (
            change(&|pod| pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 5432 }])),
            "the container \"app\" uses port 5432: give the sidecar another one with pgentra.dev/port",
        ),
        (
            change(&|pod| pod["metadata"]["annotations"]["pgentra.dev/targets"] = json!("x")),
            "there is no annotation \"pgentra.dev/targets\" (did you mean pgentra.dev/target?",
        ),
        (
            change(&|pod| {
                pod["metadata"]["annotations"]["pgentra.dev/target"] = json!("postgresql://a:b@one/")
            }),
            "password",
        ),
    ] {
        let done = apply(namespace, &pod, &[]).done();
        assert!(
            !done.status.success() && done.stderr.contains(REFUSED) && done.stderr.contains(why),
            "{why}: {done:?}"
        );
        println!("{}", done.stderr.trim_end());
    }
    // A workload is told before its pods are refused.
    let mut template =
        json!({ "metadata": { "annotations": { "pgentra.dev/prot": "1" } }, "spec": template() });
    template["spec"]["restartPolicy"] = json!("Always");
    template["metadata"]["labels"] = json!({ "app": "warned" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "warned" },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "warned" } }, "template": template },
    });
    let done = apply(namespace, &deployment, &[]).done();
    done.ok();
    assert!(
        done.stderr.contains("Warning: pgentra: its pods will be refused: there is no annotation"),
        "{done:?}"
    );
    println!("{}", done.stderr.trim_end());
}

/// Azure's webhook is asked about pods with a label, which this webhook sets: so it has to be asked later. The API server asks in the
/// order of the names of the configurations. Here a second configuration stands for Azure's, and asks the same replicas.
fn a_later_webhook_sees_the_label(operator: &Operator<'_>, namespace: &Namespace<'_>, target: &str) {
    let lab = namespace.lab;
    let ours = kubectl(
        lab,
        &["get", "mutatingwebhookconfiguration", "a-pgentra-pgentra-operator", "--output", "json"],
    );
    let mut webhook = ours.done().json()["webhooks"][0].clone();
    webhook["name"] = json!("azures.pgentra.dev");
    webhook["matchConditions"] = json!([]);
    webhook["objectSelector"] = json!({ "matchLabels": { "azure.workload.identity/use": "true" } });
    let pod = application("labelled", target);
    let mut with_label = pod.clone();
    with_label["metadata"]["labels"] = json!({ "azure.workload.identity/use": "true" });
    let questions = |pod: &Value| {
        let before = operator.injected();
        apply(namespace, pod, &["--dry-run=server"]).done().ok();
        operator.injected() - before
    };
    let [without, with] = [&pod, &with_label].map(questions);
    for (name, is_later) in [("azure-wi-webhook-mutating-webhook-configuration", true), ("0-earlier", false)]
    {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": name }, "webhooks": [webhook],
        });
        namespace.apply(&configuration);
        // The API server learns of it a moment later.
        let what = "the second configuration is known";
        eventually_blocking(ROLLOUT, what, || holds(questions(&with_label), |asked| *asked > with));
        assert_eq!(questions(&pod) > without, is_later, "{name}");
        kubectl(lab, &["delete", "mutatingwebhookconfiguration", name]).done().ok();
        let what = "the second configuration is gone";
        eventually_blocking(ROLLOUT, what, || holds(questions(&with_label), |asked| *asked == with));
    }
}

/// While no replica answers, a pod waits that asked for the sidecar, and no other pod does.
#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn without_the_webhook_other_pods_start() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "without");
    let given = given(&namespace, &cloud, "00000000-1111-2222-3333-444444444444");
    account(&namespace);
    let operator = Operator::install(&lab, "gone", &given, 90 * 24 * 3600);
    operator.scale(0);
    let asking = application("asking", &target(&given));
    let refused = apply(&namespace, &asking, &[]).done();
    assert!(!refused.status.success() && refused.stderr.contains("failed calling webhook"), "{refused:?}");
    let mut other = application("other", "");
    other["metadata"]["annotations"] = json!({});
    other["spec"]["containers"][0]["args"] = json!(["--version"]);
    let mut in_system = other.clone();
    in_system["spec"]["serviceAccountName"] = json!("default");
    let system = ["--namespace", "kube-system", "apply", "--filename", "-"];
    kubectl(&lab, &system).input(&in_system.to_string()).done().ok();
    namespace.ends(&other, "Succeeded");
    let phase = [
        "--namespace",
        "kube-system",
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/other",
        "--timeout=2m",
    ];
    kubectl(&lab, &phase).done().ok();
    kubectl(&lab, &["--namespace", "kube-system", "delete", "pod", "other"]).done().ok();
    operator.scale(2);
    apply(&namespace, &asking, &["--dry-run=server"]).done().ok();
    operator.uninstall();
}

/// Certificates live for 30 seconds, and are replaced after 20, while pods are made.
#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn the_certificate_is_replaced_while_the_webhook_serves() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "rotated");
    let given = given(&namespace, &cloud, "00000000-1111-2222-3333-444444444444");
    account(&namespace);
    let operator = Operator::install(&lab, "rotation", &given, 30);
    let pod = application("app", &target(&given));
    let (mut certificates, mut pods) = (BTreeSet::new(), 0_usize);
    let start = Instant::now();
    // Longer than the first one lives.
    while certificates.len() < 2 || start.elapsed() < Duration::from_secs(31) {
        assert!(start.elapsed() < Duration::from_secs(120), "only {} certificates", certificates.len());
        let made = apply(&namespace, &pod, &["--dry-run=server", "--output", "json"]).done();
        assert_eq!(made.json()["spec"]["initContainers"][0]["name"], "pgentra", "{made:?}");
        let secret = operator.namespace.get(&["secret", "pgentra-pgentra-operator-webhook"]);
        certificates.insert(secret["data"]["tls.crt"].as_str().unwrap().to_owned());
        pods += 1;
    }
    let made = operator.metric("pgentra_operator_webhook_certificates_total");
    println!(
        "{pods} pods in {:.0} s, {} certificates, {made} made by the replicas that run",
        start.elapsed().as_secs_f64(),
        certificates.len()
    );
    assert!(made + 1 >= certificates.len().try_into().unwrap(), "one of the replicas makes each certificate");
    operator.uninstall();
}
