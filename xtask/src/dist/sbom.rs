//! What the binaries are made of: a CycloneDX bill of materials. <https://cyclonedx.org/docs/1.5/json/>

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::release::{Release, TARGETS};
use super::shelf::{Shelf, sha256};

/// The packages of the programs.
const PROGRAMS: [&str; 2] = ["pgentra", "pgentra-operator"];

/// Writes for each program the bill of every crate that its binary for Linux links, with its licence and the hash of its
/// source.
///
/// # Errors
/// cargo does not resolve the dependencies.
pub(crate) fn make(release: &Release, shelf: &mut Shelf) -> Result<()> {
    PROGRAMS.iter().try_for_each(|program| make_one(release, shelf, program))
}

fn make_one(release: &Release, shelf: &mut Shelf, program: &str) -> Result<()> {
    let mut packages: BTreeMap<String, Value> = BTreeMap::new();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let sums = checksums(release)?;
    let mut top = None;
    for target in &TARGETS {
        let metadata = MetadataCommand::new()
            .current_dir(&release.root)
            .features(CargoOpt::SomeFeatures(Vec::new()))
            .other_options(["--locked", "--filter-platform", target.triple].map(str::to_owned).to_vec())
            .exec()
            .context("cannot resolve the dependencies")?;
        top = Some(walk((&metadata, program), &sums, &mut packages, &mut arrows)?);
    }
    let top = top.context("there is no target")?;
    let component = packages.remove(&top).context("a program is one of its packages")?;
    let dependencies: Vec<_> =
        arrows.iter().map(|(from, to)| json!({ "ref": from, "dependsOn": to })).collect();
    let count = packages.len();
    let mut bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.time()?,
            "tools": { "components": [{ "type": "application", "name": "cargo xtask dist", "version": release.version }] },
            "component": component,
        },
        "components": packages.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    // The same bill has the same number: a UUID of version 8, out of a hash.
    let hash = sha256(&serde_json::to_vec(&bill)?);
    bill["serialNumber"] = format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[13..16],
        &hash[17..20],
        &hash[20..32]
    )
    .into();
    let name = format!("{program}-{}.cdx.json", release.version);
    shelf.put(&name, &serde_json::to_vec_pretty(&bill)?, format!("CycloneDX 1.5, {count} components"))
}

/// Follows the dependencies that are linked, from the package of a program, whose reference is the answer.
fn walk(
    (metadata, program): (&Metadata, &str),
    sums: &BTreeMap<(String, String), String>,
    packages: &mut BTreeMap<String, Value>,
    arrows: &mut BTreeMap<String, BTreeSet<String>>,
) -> Result<String> {
    let resolve = metadata.resolve.as_ref().context("cargo resolves no dependencies")?;
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let of = |id: &PackageId| metadata.packages.iter().find(|package| package.id == *id);
    let top = metadata.packages.iter().find(|package| package.name.as_str() == program);
    let top = top.context("the workspace has no such program")?;
    let mut seen = BTreeSet::new();
    let mut ahead = vec![&top.id];
    while let Some(id) = ahead.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = of(id).context("a dependency is a package")?;
        packages.insert(reference(package), component(package, sums));
        let to = arrows.entry(reference(package)).or_default();
        for dependency in &nodes.get(id).context("a package has a node")?.deps {
            if dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal) {
                let package = of(&dependency.pkg).context("a dependency is a package")?;
                // A macro runs in the compiler; it is in no binary.
                if !package.targets.iter().any(cargo_metadata::Target::is_proc_macro) {
                    to.insert(reference(package));
                    ahead.push(&dependency.pkg);
                }
            }
        }
    }
    Ok(reference(top))
}

fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, sums: &BTreeMap<(String, String), String>) -> Value {
    let reference = reference(package);
    let kind = if PROGRAMS.contains(&package.name.as_str()) { "application" } else { "library" };
    let mut component = json!({
        "type": kind,
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "purl": reference,
        "scope": "required",
    });
    if let Some(licence) = &package.license {
        // An old way to write OR, which SPDX does not know.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(sum) = sums.get(&(package.name.to_string(), package.version.to_string())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// The hashes of packages by name and version, as Cargo.lock has them.
fn checksums(release: &Release) -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(&fs::read_to_string(release.root.join("Cargo.lock"))?)?;
    let sum = |locked: Locked| Some(((locked.name, locked.version), locked.checksum?));
    Ok(lock.package.into_iter().filter_map(sum).collect())
}
