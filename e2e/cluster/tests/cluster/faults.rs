//! Faults under load: two proxies behind a Service, and clients that write to a ledger through it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{Cloud, Lab};
use eventually::{eventually_blocking, holds};
use serde_json::Value;

use crate::chart::{HELM, Release};
use crate::kubernetes::{Namespace, ROLLOUT, kubectl, run_file};
use crate::psql::Psql;
use crate::stage::{ROLE, cloud, given, grant};
use crate::writers::{Access, Seen, Writers};

/// Writes that must come through after a fault, before the next one.
const CALM: usize = 8;
/// A session of a pod that is to stop has five seconds, two of them before the proxy knows.
const SHORT: [&str; 4] = ["--set", "config.drain_timeout=3", "--set", "preStopSeconds=2"];
/// The metric that counts them.
const TOKENS: &str = "pgentra_proxy_token_requests_total{";
/// The file with the seconds for which the API server is gone: `cargo xtask cluster test --api-server-gone` writes it.
const GONE: &str = "api-server-gone";

/// All that a fault is done to.
struct Scene<'a> {
    lab: &'a Lab,
    cloud: &'a Cloud<'a>,
    release: &'a Release<'a>,
    access: Arc<Access>,
    writers: Writers,
}

impl Scene<'_> {
    fn kubectl(&self, words: &[&str]) {
        self.release.namespace.kubectl(words).done().ok();
    }

    /// Two pods are ready, and none of them is one of these.
    fn await_pods(&self, before: &[String]) {
        for pod in before {
            self.kubectl(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=3m"]);
        }
        eventually_blocking(ROLLOUT, "two proxies are ready", || {
            holds(self.release.pods(), |pods| pods.len() == 2 && !pods.iter().any(|pod| before.contains(pod)))
        });
    }

    /// Does it under load, and writes a line of the table.
    fn fault(&self, what: &str, fault: impl FnOnce()) -> Seen {
        self.writers.seen();
        fault();
        self.await_calm();
        let seen = self.writers.seen();
        let acknowledged = self.writers.acknowledged();
        let stored = self.stored();
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        println!("{}", row(what, &seen, (acknowledged.len(), lost.len())));
        assert!(lost.is_empty(), "{what}: acknowledged and not there: {lost:?}");
        seen
    }

    /// The same for a change that a person plans: every new connection succeeds.
    fn planned(&self, what: &str, change: impl FnOnce()) {
        let seen = self.fault(what, change);
        assert!(seen.refused.is_empty(), "{what}: new connections failed: {:?}", seen.refused);
    }

    /// Every kind of client writes again.
    fn await_calm(&self) {
        let (stay, new) = self.writers.progress();
        eventually_blocking(ROLLOUT, "clients write again", || {
            holds(self.writers.progress(), |now| now.0 >= stay + 4 * CALM && now.1 >= new + CALM)
        });
    }

    /// How many tokens each proxy has got, in the order of their names.
    fn tokens(&self) -> Vec<u64> {
        let mut pods = self.release.pods();
        pods.sort();
        let address = |pod: &String| text(&pod_of(self, pod), "/status/podIP").to_owned();
        let count = |address: String| {
            let metrics =
                self.lab.program(&["curl", "-sSf", &format!("http://{address}:9432/metrics")]).done();
            let is_count = |line: &&str| line.starts_with(TOKENS) && line.contains("\"success\"");
            let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
            metrics.ok().lines().filter(is_count).filter_map(count).sum()
        };
        pods.iter().map(address).map(count).collect()
    }

    /// The rows of the ledger, without a proxy.
    fn stored(&self) -> BTreeSet<String> {
        let query = "SELECT client || ',' || n FROM ledger";
        let query = self.lab.pgentra(&["query", "-o", "json", "-c", query]).envs(self.cloud.env("admin"));
        let answer = query.done().json();
        let rows = answer[0]["rows"].as_array().unwrap();
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    }
}

fn row(what: &str, seen: &Seen, (acknowledged, lost): (usize, usize)) -> String {
    let list = |causes: &BTreeMap<String, usize>| {
        let texts: Vec<String> = causes.iter().map(|(cause, count)| format!("{count} × {cause}")).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join("; ") }
    };
    let longest = seen.longest.as_secs_f64();
    let (ended, refused) = (list(&seen.ended), list(&seen.refused));
    format!("| {what} | {ended} | {refused} | {longest:.1} s | {lost} of {acknowledged} |")
}

/// The group of a container, in the hierarchy that limits memory.
pub(crate) fn memory_group(container: &str) -> PathBuf {
    let ours = fs::read_to_string(run_file("control-group")).unwrap();
    let v1 = Path::new("/sys/fs/cgroup/memory").join(&ours);
    let root = if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup").join(&ours) };
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        if folder.file_name().is_some_and(|name| name.to_string_lossy().contains(container)) {
            return folder;
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    panic!("no group of container {container}")
}

/// Lowers the limit below what the container uses, so that the kernel ends it as for any container at its limit.
fn lower_limit(container: &str) {
    let group = memory_group(container);
    if group.join("memory.max").exists() {
        fs::write(group.join("memory.max"), "1000000").unwrap();
        return;
    }
    // cgroup v1 refuses a limit that it cannot reach at once: the lowest that it takes leaves no room.
    let limits = (1..=4096).map(|steps| steps * 131_072);
    let taken = limits
        .into_iter()
        .find(|limit| fs::write(group.join("memory.limit_in_bytes"), limit.to_string()).is_ok());
    assert!(taken.is_some(), "no limit was taken in {}", group.display());
}

/// A signal to a process of the control plane.
fn signal(signal: &str, name: &str) {
    let keeper = fs::read_to_string(run_file("keeper")).unwrap();
    let first = keeper.rsplit(' ').next().unwrap().to_owned();
    let pid = fs::read_to_string(run_file(&format!("{name}.pid"))).unwrap();
    let words = ["--target", &first, "--pid", "--mount", "--", "kill", signal, pid.trim()];
    assert!(Command::new("nsenter").args(words).status().unwrap().success(), "{signal} {name}");
}

fn pod(namespace: &Namespace<'_>, name: &str) -> Value {
    namespace.get(&["pod", name])
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn no_acknowledged_row_is_lost_in_a_fault() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "faults");
    let client_id = grant(&lab, &cloud, &namespace.name, "pgentra-pgentra-proxy");
    let given = given(&namespace, &cloud, &client_id);
    let table = format!(
        "CREATE TABLE ledger (client int, n int, PRIMARY KEY (client, n)); GRANT INSERT ON ledger TO \"{ROLE}\""
    );
    lab.shell(&format!("pgentra query -c '{table}'")).envs(cloud.env("admin")).done().ok();
    let release = Release::new(&namespace, HELM[1], (&client_id, &given), "first");
    release.roll_out("install", &SHORT);

    let conninfo = release.conninfo(&release.address());
    let access = Arc::new(Access { conninfo, password: Mutex::new("first".to_owned()) });
    let writers = Writers::start(&access);
    let scene = Scene { lab: &lab, cloud: &cloud, release: &release, access, writers };
    scene.await_calm();
    println!(
        "| fault | sessions that ended | new connections that failed | longest time without a new connection | acknowledged rows lost |"
    );
    println!("|---|---|---|---|---|");

    pods_go(&scene);
    the_cluster_fails(&scene);
    secrets_change(&scene);
    scene.writers.stop();
}

fn pods_go(scene: &Scene<'_>) {
    scene.fault("none, for comparison", || {});
    scene.planned("rolling restart", || {
        let before = scene.release.pods();
        scene.kubectl(&["rollout", "restart", "deployment/pgentra-pgentra-proxy"]);
        scene.kubectl(&["rollout", "status", "deployment/pgentra-pgentra-proxy", "--timeout=4m"]);
        scene.await_pods(&before);
    });
    scene.planned("helm upgrade", || {
        let before = scene.release.pods();
        scene.release.roll_out("upgrade", &[&SHORT[..], &["--set", "podAnnotations.step=two"]].concat());
        scene.await_pods(&before);
    });
    scene.planned("pod deleted", || {
        let before = scene.release.pods();
        scene.kubectl(&["delete", "pod", &before[0]]);
        scene.await_pods(&before[..1]);
    });
    scene.planned("node drained", || {
        let drain =
            ["drain", "node2", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=4m"];
        scene.kubectl(&drain);
        scene.await_pods(&[]);
        let on_node = |pod: &String| text(&pod_of(scene, pod), "/spec/nodeName") == "node2";
        assert!(!scene.release.pods().iter().any(on_node));
        scene.kubectl(&["uncordon", "node2"]);
    });
}

fn pod_of(scene: &Scene<'_>, name: &str) -> Value {
    pod(scene.release.namespace, name)
}

fn the_cluster_fails(scene: &Scene<'_>) {
    scene.fault("proxy killed at its memory limit", || {
        let name = scene.release.pods()[0].clone();
        let status =
            |pod: &Value, field: &str| text(pod, &format!("/status/containerStatuses/0/{field}")).to_owned();
        let id = status(&pod_of(scene, &name), "containerID");
        let address = text(&pod_of(scene, &name), "/status/podIP").to_owned();
        lower_limit(id.trim_start_matches("containerd://"));
        // Clients that wait for an answer: each takes some memory.
        let mut clients = Vec::new();
        eventually_blocking(ROLLOUT, "the kernel has ended the proxy", || {
            clients.extend((0..20).filter_map(|_| TcpStream::connect((&*address, 5432)).ok()));
            holds(status(&pod_of(scene, &name), "lastState/terminated/reason"), |reason| {
                reason == "OOMKilled"
            })
        });
        scene.await_pods(&[]);
    });
    let gone: u64 = fs::read_to_string(run_file(GONE)).unwrap().parse().unwrap();
    scene.fault(&format!("API server gone for {gone} s"), || {
        signal("-STOP", "apiserver");
        std::thread::park_timeout(Duration::from_secs(gone));
        signal("-CONT", "apiserver");
        eventually_blocking(ROLLOUT, "the API server is ready", || {
            kubectl(scene.lab, &["get", "--raw", "/readyz"]).done().status.success()
        });
    });
}

fn secrets_change(scene: &Scene<'_>) {
    scene.planned("certificate replaced", || {
        let new = scene.release.new_certificate();
        eventually_blocking(ROLLOUT, "every new connection gets the new certificate", || {
            (0..6).all(|_| shown(&scene.release.address()) == new)
        });
    });
    scene.fault("SCRAM file replaced", || {
        let conninfo = scene.access.conninfo.clone();
        let works = |password: &str| {
            let mut psql = Psql::start(&conninfo, password);
            let is_in = psql.ask("SELECT 1").is_some();
            psql.error();
            is_in
        };
        scene.release.set_password("second");
        "second".clone_into(&mut scene.access.password.lock().unwrap());
        eventually_blocking(ROLLOUT, "the new password works at both proxies", || {
            (0..6).all(|_| works("second"))
        });
        assert!(!works("first"));
    });
    for which in ["first", "second"] {
        scene.fault(&format!("token expired, the {which} time"), || {
            let (name, before) = (scene.cloud.text("/name"), scene.tokens());
            scene.lab.pgentra(&["local", "clock", "--name", &name, "--advance", "25h"]).done().ok();
            eventually_blocking(ROLLOUT, "both proxies have new tokens", || {
                holds(scene.tokens(), |now| now.iter().zip(&before).all(|(now, before)| now > before))
            });
        });
    }
}

/// The certificate that a new connection is shown, in DER.
fn shown(address: &str) -> Vec<u8> {
    let script = format!(
        "openssl s_client -connect {address}:5432 -starttls postgres </dev/null 2>/dev/null | openssl x509 -outform DER"
    );
    Command::new("bash").args(["-c", &script]).output().unwrap().stdout
}
