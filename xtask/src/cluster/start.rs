//! The start of a cluster: etcd, the API server, the controllers, the scheduler, and the nodes.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::keys::Keys;
use super::nodes::Node;
use super::processes::{Namespaces, until};
use super::{Folders, image, postgres};

/// How many nodes: two, so that one can be drained.
pub(crate) const NODES: usize = 2;
/// The network of the control plane and the nodes, without its last number.
pub(crate) const ADDRESS: &str = "10.87.0";
/// The networks of pods, without the last two numbers.
pub(crate) const PODS: &str = "10.88";
/// The bridge between the control plane and the nodes.
pub(crate) const BRIDGE: &str = "cluster0";

/// Starts a cluster whose nodes are ready.
///
/// # Errors
/// A part does not start; its log is in the folder of the run.
pub(crate) fn start(folders: &Folders) -> Result<()> {
    fs::create_dir_all(&folders.run)?;
    let namespaces = Namespaces::new(&folders.run)?;
    let keys = Keys::new(&folders.run)?;
    image::make(folders)?;
    postgres::make(folders)?;
    let gateway = format!("{ADDRESS}.1");
    let server = format!("https://{gateway}:6443");
    let plane = namespaces.control_plane();
    for words in [
        &["ip", "link", "add", BRIDGE, "type", "bridge"][..],
        &["ip", "address", "add", &format!("{gateway}/24"), "dev", BRIDGE],
        &["ip", "link", "set", BRIDGE, "up"],
        &["sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ] {
        namespaces.run(&plane, words)?;
    }
    let nodes = Node::all();
    for node in &nodes {
        node.connect(folders, &namespaces)?;
    }
    control_plane(folders, &namespaces, &keys, &server)?;
    keys.kubeconfig("kube-proxy", ("system:kube-proxy", None), &server)?;
    for node in &nodes {
        node.start(folders, &namespaces, &keys, &server)?;
    }
    until("every node is ready", || {
        kubectl(folders, &namespaces, &["get", "nodes", "--no-headers"])
            .is_ok_and(|said| said.matches(" Ready ").count() == NODES)
    })?;
    print!("{}", kubectl(folders, &namespaces, &["get", "nodes", "-o", "wide"])?);
    runs_pods(folders, &namespaces)
}

/// Runs a pod on each node. A test that waits for a pod says less about a cluster that starts none.
fn runs_pods(folders: &Folders, namespaces: &Namespaces) -> Result<()> {
    let account = ["get", "serviceaccount", "default"];
    until("pods have a service account", || kubectl(folders, namespaces, &account).is_ok())?;
    let pods: Vec<String> = Node::all().iter().map(|node| format!("try-{}", node.name)).collect();
    for (node, pod) in Node::all().iter().zip(&pods) {
        // Not by `nodeName`, which would pass the scheduler by.
        let chosen = json!({
            "apiVersion": "v1",
            "spec": {
                "nodeSelector": { "kubernetes.io/hostname": node.name },
                "terminationGracePeriodSeconds": 0,
            },
        });
        let image = format!("{}:1", image::PAUSE);
        let overrides = format!("--overrides={chosen}");
        kubectl(folders, namespaces, &["run", pod, "--image", &image, "--restart=Never", &overrides])?;
    }
    for pod in &pods {
        let waited = kubectl(
            folders,
            namespaces,
            &["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=1m"],
        );
        if let Err(error) = waited {
            for words in [["describe", "pods"], ["describe", "nodes"]] {
                print!("{}", kubectl(folders, namespaces, &words).unwrap_or_default());
            }
            return Err(error.context("a node starts no pod"));
        }
        kubectl(folders, namespaces, &["delete", "pod", pod, "--wait=false"])?;
    }
    Ok(())
}

fn control_plane(folders: &Folders, namespaces: &Namespaces, keys: &Keys<'_>, server: &str) -> Result<()> {
    let gateway = format!("{ADDRESS}.1");
    let names = format!("DNS:kubernetes.default.svc,DNS:kubernetes,IP:127.0.0.1,IP:10.96.0.1,IP:{gateway}");
    keys.issue("api", ("kube-apiserver", None), &names)?;
    keys.issue("api-to-kubelet", ("kube-apiserver", Some("system:masters")), "")?;
    keys.kubeconfig("admin", ("admin", Some("system:masters")), server)?;
    keys.kubeconfig("controllers", ("system:kube-controller-manager", None), server)?;
    keys.kubeconfig("scheduler", ("system:kube-scheduler", None), server)?;
    fs::copy(folders.run.join("admin.kubeconfig"), folders.run.join("kubeconfig"))
        .context("cannot write kubeconfig")?;

    let plane = namespaces.control_plane();
    // A program in another namespace of mounts begins at its root.
    let file = |option: &str, name: &str| format!("--{option}={}", folders.run.join(name).display());
    namespaces.start(
        &plane,
        &folders.run,
        "etcd",
        &[
            "etcd",
            &file("data-dir", "etcd"),
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            // Nothing of it survives the run.
            "--unsafe-no-fsync",
        ],
    )?;
    let program = |name: &str| folders.program(name).display().to_string();
    namespaces.start(
        &plane,
        &folders.run,
        "apiserver",
        &[
            &program("kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=6443",
            &format!("--advertise-address={gateway}"),
            &file("tls-cert-file", "api.crt"),
            &file("tls-private-key-file", "api.key"),
            &file("client-ca-file", "ca.crt"),
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/16",
            // No service proxy runs in this network: webhooks are asked at the addresses of their pods.
            "--enable-aggregator-routing=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            &file("service-account-key-file", "service-accounts.key"),
            &file("service-account-signing-key-file", "service-accounts.key"),
            &file("kubelet-client-certificate", "api-to-kubelet.crt"),
            &file("kubelet-client-key", "api-to-kubelet.key"),
            "--kubelet-preferred-address-types=InternalIP",
        ],
    )?;
    until("the API server is ready", || kubectl(folders, namespaces, &["get", "--raw", "/readyz"]).is_ok())?;
    namespaces.start(
        &plane,
        &folders.run,
        "controllers",
        &[
            &program("kube-controller-manager"),
            &file("kubeconfig", "controllers.kubeconfig"),
            "--use-service-account-credentials",
            &file("service-account-private-key-file", "service-accounts.key"),
            &file("root-ca-file", "ca.crt"),
            &file("cluster-signing-cert-file", "ca.crt"),
            &file("cluster-signing-key-file", "ca.key"),
            "--leader-elect=false",
        ],
    )?;
    namespaces.start(
        &plane,
        &folders.run,
        "scheduler",
        &[&program("kube-scheduler"), &file("kubeconfig", "scheduler.kubeconfig"), "--leader-elect=false"],
    )
}

/// Runs kubectl as the administrator of the cluster.
fn kubectl(folders: &Folders, namespaces: &Namespaces, words: &[&str]) -> Result<String> {
    let program = folders.program("kubectl").display().to_string();
    let config = folders.run.join("kubeconfig").display().to_string();
    let all = [&[&*program, "--kubeconfig", &config], words].concat();
    namespaces.run(&namespaces.control_plane(), &all)
}
