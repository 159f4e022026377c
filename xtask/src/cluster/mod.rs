//! `cargo xtask cluster`: a Kubernetes of two nodes on this machine, in namespaces of its own, and the tests in it.

mod control_groups;
mod image;
mod keys;
mod nodes;
mod parts;
mod postgres;
mod processes;
mod start;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use processes::Namespaces;

use crate::test::{build, cargo, run_all, run_seen};

/// What to do with the cluster.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Action {
    /// Build Kubernetes and Helm, if they are not there yet. `up` and `test` do it too. It needs Go.
    Build,
    /// Build what is not there yet, and start the cluster. It needs root, Go and Debian's packages.
    Up,
    /// End every process of the cluster, and remove what it wrote.
    Down,
    /// Start the cluster, run the tests in it, and end it. Where it cannot be had, no test runs, and the reason is printed.
    Test {
        /// Seconds for which the API server is gone in the test of faults.
        #[arg(long, value_name = "SECONDS", default_value_t = 12)]
        api_server_gone: u64,
    },
}

/// The folders of the cluster, below the build folder.
pub(crate) struct Folders {
    /// The root of the workspace.
    pub(crate) root: PathBuf,
    /// What a build leaves, for every later start.
    pub(crate) built: PathBuf,
    /// What one run writes.
    pub(crate) run: PathBuf,
    /// Helm, shared with `deploy/check.sh`.
    pub(crate) tools: PathBuf,
}

impl Folders {
    fn new(root: &Path) -> Self {
        let target = root.join("target");
        Self {
            root: root.to_owned(),
            built: target.join("cluster"),
            run: target.join("cluster/run"),
            tools: target.join("tools/bin"),
        }
    }

    /// A program that was built from Kubernetes' modules.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.built.join("bin").join(name)
    }

    /// Where Debian's packages are unpacked.
    pub(crate) fn debian(&self) -> PathBuf {
        self.built.join("debian")
    }

    /// The text of a file of `deploy/cluster`.
    pub(crate) fn data(&self, name: &str) -> Result<String> {
        let path = self.root.join("deploy/cluster").join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Does it.
///
/// # Errors
/// A build fails, a process does not start, or a test fails.
pub(crate) fn run(root: &Path, action: Action) -> Result<()> {
    let folders = Folders::new(root);
    match action {
        Action::Build if is_there("go") => parts::build(&folders),
        Action::Build => {
            println!("LEFT OUT: Kubernetes is built with Go, and there is no go");
            Ok(())
        }
        Action::Up => {
            install();
            if let Some(missing) = missing() {
                bail!("a cluster cannot start here: {missing}");
            }
            up(&folders)?;
            println!("export KUBECONFIG={}", folders.run.join("kubeconfig").display());
            println!(
                "a shell on its first node: {} bash",
                words(&Namespaces::running(&folders.run)?.on("node1"))
            );
            Ok(())
        }
        Action::Down => down(&folders),
        Action::Test { api_server_gone } => test(&folders, api_server_gone),
    }
}

fn words(list: &[String]) -> String {
    list.join(" ")
}

/// The programs that a cluster needs: the name, Debian's package, and what it is for.
const PROGRAMS: [(&str, Option<&str>, &str); 10] = [
    ("go", None, "Kubernetes is built with Go"),
    ("apt-get", None, "containerd, runc and etcd come from Debian's packages"),
    ("dpkg-deb", None, "containerd, runc and etcd come from Debian's packages"),
    ("openssl", Some("openssl"), "the keys of the cluster are made by OpenSSL"),
    ("ip", Some("iproute2"), "networks are made by ip of iproute2"),
    ("iptables", Some("iptables"), "Services are rules of iptables"),
    ("curl", Some("curl"), "the tests ask the local cloud with curl"),
    ("strip", Some("binutils"), "images are made of programs without debug information"),
    ("unshare", Some("util-linux"), "namespaces are made by unshare of util-linux"),
    ("nsenter", Some("util-linux"), "namespaces are entered by nsenter of util-linux"),
];

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--help").output().is_ok()
}

/// Installs Debian's packages of the programs that are not there. What is missing after that, [`missing`] says.
fn install() {
    let lacking = PROGRAMS.iter().filter(|(program, ..)| !is_there(program));
    let packages: Vec<&str> = lacking.filter_map(|(_, package, _)| *package).collect();
    if packages.is_empty() || !is_root() || !is_there("apt-get") {
        return;
    }
    println!("installing Debian's {}", packages.join(", "));
    for words in [&["update", "-q"][..], &["install", "-q", "-y", "--no-install-recommends"]] {
        let mut apt = Command::new("apt-get");
        apt.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        if words[0] == "install" {
            apt.args(&packages);
        }
        if let Err(error) = parts::checked(&mut apt) {
            println!("{error:#}");
        }
    }
}

/// What this machine lacks.
fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("Kubernetes' nodes are Linux".to_owned());
    }
    if !is_root() {
        return Some("namespaces and pods need root".to_owned());
    }
    if image::psql().is_none() {
        return Some("the tests connect with psql, and there is none in /usr/lib/postgresql".to_owned());
    }
    if let Some((program, _, why)) = PROGRAMS.iter().find(|(program, ..)| !is_there(program)) {
        return Some(format!("{why}, and there is no {program}"));
    }
    // A container may have root and forbid them.
    let unshared = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).output();
    let is_allowed = unshared.is_ok_and(|done| done.status.success());
    if !is_allowed {
        return Some("nodes are namespaces, which this machine forbids".to_owned());
    }
    (!control_groups::are_allowed())
        .then(|| "nodes have control groups, which cannot be made here".to_owned())
}

/// The first word of `id -u` is the user id.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|said| said.stdout.trim_ascii() == b"0")
}

fn up(folders: &Folders) -> Result<()> {
    // They become images. Built one after the other, `pgentra` has the features that every other command builds it with.
    for package in ["pgentra", "pgentra-operator"] {
        cargo(&folders.root, &["build", "--locked", "--package", package].map(OsString::from))?;
    }
    parts::fetch(folders)?;
    parts::build(folders)?;
    if folders.run.exists() {
        down(folders)?;
    }
    let started = start::start(folders);
    if started.is_err() {
        // The logs stay for the reader of the error.
        if let Ok(namespaces) = Namespaces::running(&folders.run) {
            namespaces.end()?;
        }
        control_groups::remove(&folders.run)?;
    }
    started
}

fn down(folders: &Folders) -> Result<()> {
    if !folders.run.exists() {
        println!("no cluster runs");
        return Ok(());
    }
    if let Ok(namespaces) = Namespaces::running(&folders.run) {
        namespaces.end()?;
    }
    control_groups::remove(&folders.run)?;
    std::fs::remove_dir_all(&folders.run)
        .with_context(|| format!("cannot remove {}", folders.run.display()))?;
    println!("the cluster has ended");
    Ok(())
}

fn test(folders: &Folders, api_server_gone: u64) -> Result<()> {
    install();
    let missing = missing().or_else(|| parts::fetch(folders).err().map(|error| format!("{error:#}")));
    if let Some(missing) = missing {
        println!("LEFT OUT: every test in a cluster: {missing}");
        return Ok(());
    }
    // Before the cluster, which takes the processor and has no way to a registry. With the features of the whole
    // workspace, as `cargo xtask test` builds them: no crate is built again.
    let tests = build(&folders.root, &["test", "--locked", "--workspace", "--test", "cluster"])?;
    let [tests] = &tests[..] else { bail!("{} test binaries are called cluster", tests.len()) };
    up(folders)?;
    let node = Namespaces::running(&folders.run)?.on("node1");
    std::fs::write(folders.run.join("api-server-gone"), api_server_gone.to_string())?;
    let shared = ["--ignored", "--nocapture", "--test-threads=1"];
    let groups = TOGETHER.map(|(name, modules)| tests.with(name, &[&shared[..], modules].concat()));
    let mut failed = run_all(&groups, &node)?;
    let others = TOGETHER.iter().flat_map(|(_, modules)| *modules).flat_map(|module| ["--skip", module]);
    let alone = tests.with("alone", &shared.into_iter().chain(others).collect::<Vec<_>>());
    if !run_seen(&alone, &node)? {
        failed.push("alone");
    }
    if failed.is_empty() {
        return down(folders);
    }
    println!("the cluster still runs: export KUBECONFIG={}", folders.run.join("kubeconfig").display());
    bail!("failed, as printed above: {}", failed.join(", "))
}

/// Two groups of modules with tests that run at the same time: they wait for pods most of their time. Within a group one
/// runs after another, because each installs the operator, or replaces its image. The modules that are not here drain
/// nodes, stop the API server or measure, and run alone after these.
const TOGETHER: [(&str, &[&str]); 2] = [
    ("charts", &["chart::", "gateway::", "identity::", "local::"]),
    ("operator", &["injection::", "roles::"]),
];
