//! What a proxy costs in a cluster: the time until a pod is ready, memory and processor time.

use std::io::BufReader;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use e2e::Lab;
use eventually::eventually_blocking;
use serde_json::de::IoRead;
use serde_json::{Deserializer, StreamDeserializer, Value};
use tokio::time::Instant;

use crate::chart::{HELM, Release};
use crate::kubernetes::{Namespace, ROLLOUT, kubectl};
use crate::psql::Psql;
use crate::stage::{ROLE, cloud, given, grant};

/// Clients whose sessions stay open: as many as the local PostgreSQL takes.
const SESSIONS: usize = 80;
/// Pods that are replaced, one after another.
const STARTS: usize = 3;

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn the_requests_of_the_chart_are_enough_for_its_sessions() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "cost");
    let client_id = grant(&lab, &cloud, &namespace.name, "pgentra-pgentra-proxy");
    let given = given(&namespace, &cloud, &client_id);
    let release = Release::new(&namespace, HELM[1], (&client_id, &given), "first");
    release.roll_out("install", &["--set", "replicas=1", "--set", "preStopSeconds=0"]);

    println!("| pod | created to started | started to ready |");
    println!("|---|---|---|");
    for number in 1..=STARTS {
        let (started, ready) = replaced(&release);
        println!("| {number} | {:.1} s | {:.1} s |", started.as_secs_f64(), ready.as_secs_f64());
    }

    let pod = release.pods().remove(0);
    let idle = eventually_blocking(ROLLOUT, "the kubelet has measured the pod", || {
        usage(&lab, &namespace, &pod).ok_or("it has not")
    });
    let conninfo = release.conninfo(&release.address());
    eventually_blocking(ROLLOUT, "the Service leads to the new pod", || {
        Psql::start(&conninfo, "first").ask("SELECT 1").ok_or("it does not")
    });
    let mut sessions = Vec::new();
    for number in 1..=SESSIONS {
        let mut session = Psql::start(&conninfo, "first");
        let answer = session.ask("SELECT current_user");
        assert!(answer.as_deref() == Some(ROLE), "session {number}: {}", session.error());
        sessions.push(session);
    }
    let busy = eventually_blocking(ROLLOUT, "the kubelet has measured the pod again", || {
        usage(&lab, &namespace, &pod).filter(|now| now.at != idle.at).ok_or("it has not")
    });
    println!("| proxy | memory in use | processor time since its start |");
    println!("|---|---|---|");
    for (what, usage) in [("idle", &idle), (&*format!("with {SESSIONS} sessions"), &busy)] {
        println!("| {what} | {} MiB | {:.2} s |", usage.memory >> 20, usage.processor.as_secs_f64());
    }
    let values = namespace.get(&["pod", &pod]);
    let requested = values.pointer("/spec/containers/0/resources/requests/memory").and_then(Value::as_str);
    let requested: u64 = requested.and_then(|it| it.strip_suffix("Mi")).unwrap().parse().unwrap();
    assert!(busy.memory >> 20 < requested, "{} of {requested} MiB", busy.memory >> 20);
}

/// Deletes the one pod of the release. Returns how long its successor took until its container ran, and from there
/// until it was ready.
fn replaced(release: &Release<'_>) -> (Duration, Duration) {
    let before = release.pods().remove(0);
    let mut watch = Watch::start(release);
    release.namespace.kubectl(&["delete", "pod", &before, "--wait=false"]).done().ok();
    let created = watch.until(&before, |_| true);
    let started =
        watch.until(&before, |pod| pod.pointer("/status/containerStatuses/0/state/running").is_some());
    let ready = watch.until(&before, |pod| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
    });
    (started - created, ready - started)
}

/// What the API server reports of the pods of a release, as it comes.
struct Watch {
    process: Child,
    pods: StreamDeserializer<'static, IoRead<BufReader<ChildStdout>>, Value>,
}

impl Watch {
    fn start(release: &Release<'_>) -> Self {
        let words = ["get", "pods", "--selector", "app.kubernetes.io/name=pgentra-proxy"];
        let more = ["--watch", "--output", "json"];
        let mut process = release
            .namespace
            .kubectl_that_stays(&[&words[..], &more].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, pods: Deserializer::from_reader(output).into_iter() }
    }

    /// When another pod than this is seen to be so.
    fn until(&mut self, but: &str, is_so: impl Fn(&Value) -> bool) -> Instant {
        let is_it = |pod: &Value| pod["metadata"]["name"] != but && is_so(pod);
        let found = self.pods.by_ref().map(Result::unwrap).find(is_it);
        assert!(found.is_some(), "the watch ended");
        Instant::now()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _it_may_have_ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// What the kubelet has measured of the container of a pod.
struct Usage {
    at: String,
    memory: u64,
    processor: Duration,
}

fn usage(lab: &Lab, namespace: &Namespace<'_>, pod: &str) -> Option<Usage> {
    let node = namespace.get(&["pod", pod])["spec"]["nodeName"].as_str()?.to_owned();
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let summary = kubectl(lab, &["get", "--raw", &path]).done().json();
    let pods = summary["pods"].as_array()?;
    let container = &pods.iter().find(|it| it["podRef"]["name"] == pod)?["containers"][0];
    Some(Usage {
        at: container["memory"]["time"].as_str()?.to_owned(),
        memory: container["memory"]["workingSetBytes"].as_u64()?,
        processor: Duration::from_nanos(container["cpu"]["usageCoreNanoSeconds"].as_u64()?),
    })
}
