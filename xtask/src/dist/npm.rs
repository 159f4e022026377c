//! The npm packages: `pgentra` with a small program that finds the binary, and one package with the binary for each system.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::archive::{READ, RUN, Tree};
use super::build::Built;
use super::release::Release;
use super::shelf::Shelf;

/// Makes the package of one system.
///
/// # Errors
/// The binary cannot be read.
pub(crate) fn platform(release: &Release, built: &Built, shelf: &mut Shelf) -> Result<()> {
    let mut tree = licences(release)?;
    tree.copy("bin/pgentra", RUN, &built.full)?;
    let node = built.target.node;
    let mut manifest = manifest(release, &name(built));
    manifest["description"] = format!("The binary of pgentra for Linux on {}", built.target.arch).into();
    manifest["os"] = json!(["linux"]);
    manifest["cpu"] = json!([node]);
    manifest["preferUnplugged"] = true.into();
    pack(release, tree, &manifest, &format!("pgentra-linux-{node}-{}.tgz", release.version), shelf)
}

/// Makes the package that users install.
///
/// # Errors
/// A file of `deploy/npm` cannot be read.
pub(crate) fn main(release: &Release, all: &[Built], shelf: &mut Shelf) -> Result<()> {
    let mut tree = licences(release)?;
    tree.copy("bin/pgentra.js", RUN, &release.root.join("deploy/npm/pgentra.js"))?;
    tree.copy("README.md", READ, &release.root.join("README.md"))?;
    let binaries: Map<String, Value> =
        all.iter().map(|built| (name(built), release.version.clone().into())).collect();
    let mut manifest = manifest(release, "pgentra");
    manifest["description"] = "PostgreSQL without passwords, on Azure identities".into();
    manifest["bin"] = json!({ "pgentra": "bin/pgentra.js" });
    manifest["engines"] = json!({ "node": ">=18" });
    manifest["optionalDependencies"] = Value::Object(binaries);
    pack(release, tree, &manifest, &format!("pgentra-{}.tgz", release.version), shelf)
}

fn name(built: &Built) -> String {
    format!("@pgentra/linux-{}", built.target.node)
}

fn manifest(release: &Release, name: &str) -> Value {
    json!({ "name": name, "version": release.version, "license": "(Apache-2.0 OR MIT)" })
}

fn licences(release: &Release) -> Result<Tree> {
    let mut tree = Tree::default();
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy(licence, READ, &release.root.join(licence))?;
    }
    Ok(tree)
}

/// As `npm pack`: everything below the folder `package`.
fn pack(release: &Release, mut tree: Tree, manifest: &Value, name: &str, shelf: &mut Shelf) -> Result<()> {
    tree.file("package.json", READ, serde_json::to_string_pretty(manifest)? + "\n");
    shelf.put(name, &tree.below("package").tar_gz(release.epoch)?, "as `npm pack` makes it")
}
