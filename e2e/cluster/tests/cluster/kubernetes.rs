//! kubectl, Helm and the folders of the cluster that `cargo xtask cluster` has started.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{Done, Lab, Run};
use serde_json::{Value, json};

/// The time in which pods are replaced on a slow machine.
pub(crate) const ROLLOUT: Duration = Duration::from_secs(180);
/// The address of the node that the tests run on.
pub(crate) const HERE: &str = "10.87.0.11";

/// A namespace of the cluster. Dropping it deletes it. If the test has failed, dropping it prints what a reader needs
/// who has no cluster to look at, and deletes nothing.
pub(crate) struct Namespace<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) name: String,
}

fn target() -> PathBuf {
    e2e::pgentra().ancestors().nth(2).unwrap().to_owned()
}

/// A file of the run of the cluster.
pub(crate) fn run_file(name: &str) -> PathBuf {
    target().join("cluster/run").join(name)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `kubectl` with these arguments.
pub(crate) fn kubectl<'lab>(lab: &'lab Lab, words: &[&str]) -> Run<'lab> {
    let program = target().join("cluster/bin/kubectl");
    lab.program(&[&[path(&program)], words].concat()).env("KUBECONFIG", run_file("kubeconfig")).within(300)
}

/// `helm` of this version.
pub(crate) fn helm<'lab>(lab: &'lab Lab, version: &str, words: &[&str]) -> Run<'lab> {
    let program = target().join("tools/bin").join(format!("helm-{version}"));
    lab.program(&[&[path(&program)], words].concat()).env("KUBECONFIG", run_file("kubeconfig")).within(300)
}

impl<'lab> Namespace<'lab> {
    /// A new namespace of this name.
    pub(crate) fn new(lab: &'lab Lab, name: &str) -> Self {
        kubectl(lab, &["create", "namespace", name]).done().ok();
        Self { lab, name: name.to_owned() }
    }

    /// `kubectl` in it.
    pub(crate) fn kubectl(&self, words: &[&str]) -> Run<'lab> {
        kubectl(self.lab, &[&["--namespace", &self.name], words].concat())
    }

    /// `kubectl` in it, as a process that goes on until it is killed.
    pub(crate) fn kubectl_that_stays(&self, words: &[&str]) -> Command {
        let mut command = Command::new(target().join("cluster/bin/kubectl"));
        command.env("KUBECONFIG", run_file("kubeconfig")).args(["--namespace", &self.name]).args(words);
        command
    }

    /// Makes this object, or changes it to be so.
    pub(crate) fn apply(&self, object: &Value) {
        self.kubectl(&["apply", "--filename", "-"]).input(&object.to_string()).done().ok();
    }

    /// A Secret with these files.
    pub(crate) fn secret(&self, name: &str, files: &Value) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": files,
        }));
    }

    /// The objects of a kind, or one object.
    pub(crate) fn get(&self, words: &[&str]) -> Value {
        self.kubectl(&[&["get", "--output", "json"], words].concat()).done().json()
    }

    /// Runs a pod to its end, in this phase (`Succeeded` or `Failed`). Returns what it wrote.
    pub(crate) fn ends(&self, pod: &Value, phase: &str) -> Done<'lab> {
        self.apply(pod);
        let name = pod["metadata"]["name"].as_str().unwrap();
        let phase = format!("--for=jsonpath={{.status.phase}}={phase}");
        let waited = self.kubectl(&["wait", &phase, &format!("pod/{name}"), "--timeout=3m"]).done();
        let said = self.kubectl(&["logs", name]).done();
        assert!(waited.status.success(), "{waited:?}\n{said:?}");
        said
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for words in [
                &["get", "pods", "--output", "wide"][..],
                &["get", "events", "--sort-by", ".lastTimestamp"],
                &["describe", "nodes"],
            ] {
                // A second panic would end the tests at once. The API server may be what has failed.
                let bounded = [words, &["--request-timeout=20s"]].concat();
                let shown = catch_unwind(AssertUnwindSafe(|| format!("{:?}", self.kubectl(&bounded).done())));
                println!("{}", shown.unwrap_or_else(|_| format!("kubectl {words:?} did not end")));
            }
        } else {
            kubectl(self.lab, &["delete", "namespace", &self.name, "--wait=false"]).done().ok();
        }
    }
}
