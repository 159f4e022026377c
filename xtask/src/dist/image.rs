//! The container images: from scratch, and not as root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::archive::{READ, RUN, Tree};
use super::build::{self, Built, is_native};
use super::oci::{Artefact, Blob, layout};
use super::release::Release;
use super::shelf::{Shelf, sha256};

/// A number, so that Kubernetes can tell that it is not root. The number that distroless images have.
const USER: &str = "65532";

/// How an image is made that has nothing but a static binary.
const FROM_SCRATCH: &str = "OCI layout, from scratch, user 65532";

/// The image `pgentra`: the binary without PostgreSQL.
///
/// # Errors
/// The binary cannot be read.
pub(crate) fn pgentra(release: &Release, built: &Built, shelf: &mut Shelf) -> Result<()> {
    let mut tree = base();
    tree.copy("usr/bin/pgentra", RUN, &built.small)?;
    let name = format!("pgentra-{}-image-{}.tar", release.version, built.target.arch);
    let image = image((release, built), &tree, ("pgentra", &["proxy"]))?;
    shelf.put(&name, &layout(&image, release.epoch)?, FROM_SCRATCH)
}

/// The image `pgentra-operator`: its binary, which has a client of Kubernetes' API, so that the image `pgentra` stays small.
///
/// # Errors
/// The binary cannot be read.
pub(crate) fn operator(release: &Release, built: &Built, shelf: &mut Shelf) -> Result<()> {
    let mut tree = base();
    tree.copy("usr/bin/pgentra-operator", RUN, &build::operator(release, built.target)?)?;
    let name = format!("pgentra-operator-{}-image-{}.tar", release.version, built.target.arch);
    let image = image((release, built), &tree, ("pgentra-operator", &["run"]))?;
    shelf.put(&name, &layout(&image, release.epoch)?, FROM_SCRATCH)
}

/// The image `pgentra-local`: the binary with PostgreSQL, and what PostgreSQL's programs take.
///
/// # Errors
/// A library cannot be read.
pub(crate) fn local(release: &Release, built: &Built, shelf: &mut Shelf) -> Result<()> {
    let name = format!("pgentra-local-{}-image-{}.tar", release.version, built.target.arch);
    if !is_native(built.target) {
        shelf.leave_out(name, "the C library for PostgreSQL is taken from a machine of that kind");
        return Ok(());
    }
    let mut tree = base();
    tree.copy("usr/bin/pgentra", RUN, &built.full)?;
    if let Err(error) = userland(&mut tree) {
        shelf.leave_out(name, format!("{error:#}"));
        return Ok(());
    }
    let image = image((release, built), &tree, ("pgentra", &["local", "up"]))?;
    let how = "OCI layout, with this machine's C library, shell and coreutils, user 65532";
    shelf.put(&name, &layout(&image, release.epoch)?, how)
}

/// What every image has: certificates, a user, a folder for temporary files.
fn base() -> Tree {
    let mut tree = Tree::default();
    tree.file("etc/ssl/certs/ca-certificates.crt", READ, certificates());
    tree.file(
        "etc/passwd",
        READ,
        format!("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/sbin/nologin\n"),
    );
    tree.file("etc/group", READ, format!("root:x:0:\nnonroot:x:{USER}:\n"));
    // Without it glibc's order is its own.
    tree.file("etc/nsswitch.conf", READ, "hosts: files dns\n");
    tree.folder("tmp", 0o1777);
    tree
}

/// Mozilla's roots as PEM: from a crate, so that they do not depend on the machine.
fn certificates() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Programs of the scripts that start PostgreSQL and remove its folder (`janitor.sh` in localdb).
const PROGRAMS: [&str; 6] = ["sh", "ipcrm", "mkdir", "rm", "sleep", "tr"];

/// What the embedded PostgreSQL links: the C library's parts and zlib.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libz.so.1"];

/// Puts this machine's programs and shared libraries into an image, for the embedded PostgreSQL.
///
/// # Errors
/// This machine lacks one.
pub(crate) fn userland(tree: &mut Tree) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let folders = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
        let path = folders.into_iter().find(|path| path.exists());
        let path = path.with_context(|| format!("this machine has no /bin/{program}"))?;
        tree.copy(&format!("bin/{program}"), RUN, &path)?;
        let said = Command::new("ldd").arg(&path).output().context("cannot run ldd")?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        libraries.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    let libc = libraries.iter().find(|path| path.ends_with("libc.so.6")).context("ldd names no C library")?;
    let folder = libc.parent().context("a library lies in a folder")?.to_owned();
    for name in LIBRARIES {
        ensure!(folder.join(name).exists(), "this machine has no {name} in {}", folder.display());
        libraries.insert(folder.join(name));
    }
    for library in libraries {
        let path = library.to_str().context("a library's name is not UTF-8")?;
        tree.copy(path.trim_start_matches('/'), RUN, &library)?;
    }
    Ok(())
}

/// One layer and its configuration: the program below `/usr/bin`, and its arguments.
fn image(
    (release, built): (&Release, &Built),
    tree: &Tree,
    (program, command): (&str, &[&str]),
) -> Result<Artefact> {
    let layer = tree.tar(release.epoch)?;
    let created = release.time()?;
    let config = json!({
        "created": created,
        "architecture": built.target.debian,
        "os": "linux",
        "config": {
            "User": USER,
            "Env": ["PATH=/usr/bin:/bin", "HOME=/tmp"],
            "Entrypoint": [format!("/usr/bin/{program}")],
            "Cmd": command,
            "WorkingDir": "/",
            "Labels": labels(release, program),
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    });
    Ok(Artefact {
        config: Blob {
            media_type: "application/vnd.oci.image.config.v1+json",
            bytes: serde_json::to_vec(&config)?,
        },
        layer: Blob {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
            bytes: tree.tar_gz(release.epoch)?,
        },
        tag: release.version.clone(),
        annotations: labels(release, program),
        platform: Some(json!({ "architecture": built.target.debian, "os": "linux" })),
    })
}

fn labels(release: &Release, title: &str) -> serde_json::Value {
    json!({
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.description": "PostgreSQL without passwords, on Azure identities",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
    })
}
