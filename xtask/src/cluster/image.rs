//! The images in the cluster: made from files of this machine, without a daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Folders;
use super::parts::checked;
use crate::dist::{Artefact, Blob, RUN, Tree, layout, sha256, userland};

/// The image of the container that holds the namespaces of a pod.
pub(crate) const PAUSE: &str = "localhost/pause";
/// The image of an application: psql.
const CLIENT: &str = "docker.io/library/client";
/// The images of the binaries under test, as the charts' `pgentra` and `pgentra-operator` are read.
const PGENTRA: &str = "docker.io/library/pgentra";
const OPERATOR: &str = "docker.io/library/pgentra-operator";
/// The same binary as in [`PGENTRA`], with what its embedded PostgreSQL needs.
const LOCAL: &str = "docker.io/library/pgentra-local";

/// The psql of an installed PostgreSQL. `/usr/bin/psql` of Debian is a script.
pub(crate) fn psql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions.map(|version| version.path().join("bin/psql")).find(|path| path.exists())
}

/// Makes the images: of the container that holds the namespaces of a pod, of the binaries under test, and of psql.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn make(folders: &Folders) -> Result<()> {
    let mut pause = Tree::default();
    pause.copy("bin/sleep", RUN, &folders.debian().join("bin/busybox"))?;
    write(folders, PAUSE, "1", &pause, (&["/bin/sleep", "2000000000"], "0"))?;

    let mut client = program("usr/bin/psql", &psql().context("no psql is installed")?)?;
    client.folder("tmp", 0o1777);
    write(folders, CLIENT, "1", &client, (&["/usr/bin/psql"], "65532"))?;

    let chart = fs::read_to_string(folders.root.join("deploy/helm/pgentra-proxy/Chart.yaml"))?;
    let tag = chart.lines().find_map(|line| line.strip_prefix("appVersion: ")).context("no appVersion")?;
    for (image, name) in [(PGENTRA, "pgentra"), (OPERATOR, "pgentra-operator"), (LOCAL, "pgentra")] {
        let built = folders.root.join("target/debug").join(name);
        ensure!(built.exists(), "{} is not built: cargo build --package {name}", built.display());
        let binary = stripped(folders, &built)?;
        // The same layout as the image of `cargo xtask dist`, with the libraries that its static binary has in itself.
        let path = format!("usr/bin/{name}");
        let mut tree = program(&path, &binary)?;
        tree.folder("tmp", 0o1777);
        if image == LOCAL {
            userland(&mut tree)?;
        }
        write(folders, image, tag.trim_matches('"'), &tree, (&[&format!("/{path}")], "65532"))?;
    }
    Ok(())
}

/// The images that every node imports: their names without a tag, and their archives.
pub(crate) fn archives(run: &Path) -> [(&'static str, PathBuf); 5] {
    [PAUSE, CLIENT, PGENTRA, OPERATOR, LOCAL].map(|name| (name, archive(run, name)))
}

pub(super) fn archive(run: &Path, name: &str) -> PathBuf {
    run.join("images").join(format!("{}.tar", name.rsplit('/').next().unwrap_or(name)))
}

/// A copy of a program without its debug information, which is most of its size: each node has its images twice, as
/// archives and as folders.
fn stripped(folders: &Folders, built: &Path) -> Result<PathBuf> {
    let to = folders.run.join("images").join(built.file_name().context("a program has a name")?);
    fs::create_dir_all(folders.run.join("images"))?;
    checked(Command::new("strip").arg("-o").arg(&to).arg(built))?;
    Ok(to)
}

/// A program with its shared libraries.
pub(super) fn program(path: &str, from: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.copy(path, RUN, from)?;
    for library in libraries(from)? {
        let path = library.to_str().context("a library's name is not UTF-8")?;
        tree.copy(path.trim_start_matches('/'), RUN, &library)?;
    }
    Ok(tree)
}

/// The shared libraries of a program, with the loader.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let said = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Writes the archive of an image.
pub(super) fn write(
    folders: &Folders,
    name: &str,
    tag: &str,
    tree: &Tree,
    (entrypoint, user): (&[&str], &str),
) -> Result<()> {
    let layer = tree.tar(0)?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "User": user, "Env": ["PATH=/usr/bin:/bin", "HOME=/tmp"], "Entrypoint": entrypoint },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
    });
    let artefact = Artefact {
        config: Blob {
            media_type: "application/vnd.oci.image.config.v1+json",
            bytes: serde_json::to_vec(&config)?,
        },
        // It goes no further than this machine: to compress it would take longer than to copy it.
        layer: Blob { media_type: "application/vnd.oci.image.layer.v1.tar", bytes: layer },
        tag: tag.to_owned(),
        annotations: json!({}),
        platform: Some(json!({ "architecture": architecture, "os": "linux" })),
    };
    fs::create_dir_all(folders.run.join("images"))?;
    let file = archive(&folders.run, name);
    fs::write(&file, layout(&artefact, 0)?).with_context(|| format!("cannot write {}", file.display()))
}
