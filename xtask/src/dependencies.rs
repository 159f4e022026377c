//! The dependencies between crates: ARCHITECTURE.md's table against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crates that the tests of any crate may use.
const TEST_CRATES: [&str; 8] =
    ["emulator", "eventually", "local", "localdb", "gateway", "identity", "system", "verify"];

/// Every difference between the table and the manifests.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let drawn = table(&page);
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    let mut faults = Vec::new();
    let mut built = BTreeSet::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().and_then(|path| path.file_name()).unwrap_or_default();
        built.insert(folder.to_owned());
        let Some(allowed) = drawn.get(folder) else {
            faults.push(format!("`{folder}` is not in the table of crates"));
            continue;
        };
        let mut real = BTreeSet::new();
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let name = folder_of(&dependency.name);
            match dependency.kind {
                DependencyKind::Development
                    if TEST_CRATES.contains(&name.as_str()) || allowed.contains(&name) => {}
                DependencyKind::Normal => drop(real.insert(name)),
                kind => faults.push(format!(
                    "`{folder}` → `{name}` is not a dependency that the table has ({kind:?} dependency)"
                )),
            }
        }
        for extra in real.difference(allowed) {
            faults.push(format!("`{folder}` → `{extra}` is in the manifest, not in ARCHITECTURE.md"));
        }
        for missing in allowed.difference(&real) {
            faults.push(format!("`{folder}` → `{missing}` is in ARCHITECTURE.md, not in the manifest"));
        }
    }
    for name in drawn.keys().filter(|name| !built.contains(*name)) {
        faults.push(format!("`{name}` is in the table of crates, not in the workspace"));
    }
    Ok(faults)
}

/// The number of crates in the table, and of their dependencies on each other.
pub(crate) fn count(root: &Path) -> Result<(usize, usize)> {
    let page = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let drawn = table(&page);
    Ok((drawn.len(), drawn.values().map(BTreeSet::len).sum()))
}

/// Each crate with the crates that it depends on, from the rows of the table.
fn table(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| {
            let mut cells = row.split('|');
            let name = cells.next()?.trim().trim_end_matches('`').to_owned();
            let arrows = cells.nth(1)?;
            Some((name, arrows.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
        })
        .collect()
}

fn folder_of(package: &str) -> String {
    match package {
        "pgentra" => "cli".to_owned(),
        name => name.strip_prefix("pgentra-").unwrap_or(name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_yields_its_arrows() {
        let page = "| name | job | depends on | x |\n|---|---|---|---|\n| `a` | does `z` | `b`, `c` | |\n| `b` | b | | `a` |\n";
        let drawn = table(page);
        assert_eq!(drawn["a"], BTreeSet::from(["b".to_owned(), "c".to_owned()]));
        assert!(drawn["b"].is_empty());
    }

    /// Invariant 6: the lowest crates depend on no other crate of the workspace, and neither
    /// proxy on the other.
    #[test]
    fn the_bottom_crates_depend_on_none_of_ours() {
        let page = std::fs::read_to_string(crate::tree::root().unwrap().join("ARCHITECTURE.md")).unwrap();
        let drawn = table(&page);
        for name in ["system", "toml-lines", "wire", "verify", "certificates", "localdb"] {
            assert!(drawn[name].is_empty(), "{name}");
        }
        assert!(!drawn["proxy"].contains("gateway") && !drawn["gateway"].contains("proxy"));
        assert!(["proxy", "gateway"].iter().all(|side| !drawn["session"].contains(*side)));
        assert_eq!(check(&crate::tree::root().unwrap()).unwrap(), Vec::<String>::new());
    }
}
