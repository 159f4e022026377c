//! The programs of a cluster: Kubernetes and Helm from their Go modules, the rest from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Folders;
use crate::dist::sha256;

/// The programs of Kubernetes, as folders of its module.
const KUBERNETES: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"];

/// Debian's packages. They are unpacked below the build folder, and not installed.
const DEBIAN: [&str; 5] =
    ["etcd-server", "containerd", "runc", "containernetworking-plugins", "busybox-static"];

/// Helm's versions: the two that are supported. The first is that of `deploy/check.sh`.
const HELM: [(&str, &str); 2] =
    [("4.3.1", "helm.sh/helm/v4/cmd/helm"), ("3.22.0", "helm.sh/helm/v3/cmd/helm")];

/// Fetches what is not there yet: Debian's packages, and the modules of Helm and Kubernetes.
///
/// # Errors
/// A module or a package cannot be had.
pub(crate) fn fetch(folders: &Folders) -> Result<()> {
    fs::create_dir_all(&folders.built)?;
    debian(folders)?;
    for (version, module) in HELM {
        helm_modules(folders, version, module)?;
    }
    if is_built(folders)? {
        return Ok(());
    }
    checked(go(folders).args(["mod", "download"])).context("the modules of Kubernetes cannot be had")
}

/// Builds Kubernetes and Helm, if they are not there yet.
///
/// # Errors
/// A module cannot be had, or a build fails.
pub(crate) fn build(folders: &Folders) -> Result<()> {
    fs::create_dir_all(&folders.built)?;
    fs::create_dir_all(&folders.tools)?;
    for (version, module) in HELM {
        helm(folders, version, module)?;
    }
    if is_built(folders)? {
        return Ok(());
    }
    kubernetes(folders)?;
    fs::write(stamp(folders), key(folders)?)?;
    Ok(())
}

fn is_built(folders: &Folders) -> Result<bool> {
    let key = key(folders)?;
    Ok(fs::read_to_string(stamp(folders)).is_ok_and(|built| built == key))
}

/// Contains the [`key`] of the programs that are there.
fn stamp(folders: &Folders) -> PathBuf {
    folders.built.join("bin.sha256")
}

/// What the programs of Kubernetes are built from, as one hash.
fn key(folders: &Folders) -> Result<String> {
    Ok(sha256(format!("{}{}{KUBERNETES:?}", folders.data("go.mod")?, folders.data("go.sum")?).as_bytes()))
}

fn kubernetes(folders: &Folders) -> Result<()> {
    let module = folders.data("go.mod")?;
    let version = module
        .lines()
        .find_map(|line| line.strip_prefix("require k8s.io/kubernetes v"))
        .context("deploy/cluster/go.mod requires k8s.io/kubernetes")?;
    let minor = version.split('.').nth(1).context("a version has a minor number")?;
    println!("building Kubernetes {version} from its modules: minutes, once");
    let named = "k8s.io/component-base/version";
    let flags =
        format!("-s -w -X {named}.gitVersion=v{version} -X {named}.gitMajor=1 -X {named}.gitMinor={minor}");
    let mut go = go(folders);
    go.args(["build", "-mod=readonly", "-o"]).arg(format!("{}/", folders.built.join("bin").display()));
    go.args(["-ldflags", &flags]).args(KUBERNETES.map(|name| format!("k8s.io/kubernetes/cmd/{name}")));
    checked(&mut go)
}

/// Where Helm of this version is, once it is built.
fn helm_program(folders: &Folders, version: &str) -> PathBuf {
    folders.tools.join(format!("helm-{version}"))
}

/// Fetches the modules that Helm is built from. `go mod download` would leave out those that Helm's module requires.
fn helm_modules(folders: &Folders, version: &str, module: &str) -> Result<()> {
    if helm_program(folders, version).exists() {
        return Ok(());
    }
    // It prints the commands of the build, and runs none.
    let done = go(folders).args(["install", "-n", &format!("{module}@v{version}")]).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "the modules of Helm cannot be had: {}", said.trim_end());
    Ok(())
}

fn helm(folders: &Folders, version: &str, module: &str) -> Result<()> {
    let to = helm_program(folders, version);
    if to.exists() {
        return Ok(());
    }
    println!("building Helm {version}");
    let folder = folders.built.join("helm");
    checked(go(folders).args(["install", &format!("{module}@v{version}")]).env("GOBIN", &folder))?;
    fs::rename(folder.join("helm"), &to).with_context(|| format!("cannot write {}", to.display()))
}

/// Go in the folder of the module that pins every version; static programs.
fn go(folders: &Folders) -> Command {
    let mut go = Command::new("go");
    go.current_dir(folders.root.join("deploy/cluster")).env("GOFLAGS", "").env("CGO_ENABLED", "0");
    go
}

fn debian(folders: &Folders) -> Result<()> {
    let to = folders.debian();
    if to.exists() {
        return Ok(());
    }
    println!("unpacking Debian's {}", DEBIAN.join(", "));
    let fresh = folders.built.join("debian.new");
    let packages = fresh.join("packages");
    fs::create_dir_all(&packages)?;
    checked(Command::new("apt-get").args(["download", "-q"]).args(DEBIAN).current_dir(&packages))?;
    for package in fs::read_dir(&packages)? {
        checked(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(&fresh))?;
    }
    fs::remove_dir_all(&packages)?;
    fs::rename(&fresh, &to).with_context(|| format!("cannot write {}", to.display()))
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be run, or fails.
pub(crate) fn checked(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// A text of `deploy/cluster` with its `@NAME@` replaced, written to a file.
///
/// # Errors
/// A name is left, or the file cannot be written.
pub(crate) fn fill(text: &str, values: &[(&str, &str)], to: &Path) -> Result<()> {
    let filled =
        values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    let left = filled.lines().find(|line| !line.starts_with('#') && line.contains('@'));
    ensure!(left.is_none(), "{}: {left:?} has a name without a value", to.display());
    fs::write(to, filled).with_context(|| format!("cannot write {}", to.display()))
}
