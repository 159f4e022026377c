//! The arrows between rooms: ARCHITECTURE.md's table against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Rooms that tests of any crate may use.
const TEST_ROOMS: [&str; 2] = ["emulator", "localdb"];

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
            faults.push(format!("`{folder}` is not in the table of rooms"));
            continue;
        };
        let mut real = BTreeSet::new();
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let room = room(&dependency.name);
            match dependency.kind {
                DependencyKind::Development
                    if TEST_ROOMS.contains(&room.as_str()) || allowed.contains(&room) => {}
                DependencyKind::Normal => drop(real.insert(room)),
                kind => faults.push(format!("`{folder}` → `{room}` is not an arrow ({kind:?} dependency)")),
            }
        }
        for extra in real.difference(allowed) {
            faults.push(format!("`{folder}` → `{extra}` is in the manifest, not in ARCHITECTURE.md"));
        }
        for missing in allowed.difference(&real) {
            faults.push(format!("`{folder}` → `{missing}` is in ARCHITECTURE.md, not in the manifest"));
        }
    }
    for room in drawn.keys().filter(|room| !built.contains(*room)) {
        faults.push(format!("`{room}` is in the table of rooms, not in the workspace"));
    }
    Ok(faults)
}

/// Room → the rooms it depends on, from the rows of the table.
fn table(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| {
            let mut cells = row.split('|');
            let room = cells.next()?.trim().trim_end_matches('`').to_owned();
            let arrows = cells.nth(1)?;
            Some((room, arrows.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
        })
        .collect()
}

fn room(package: &str) -> String {
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
        let page = "| room | job | depends on | x |\n|---|---|---|---|\n| `a` | does `z` | `b`, `c` | |\n| `b` | b | | `a` |\n";
        let drawn = table(page);
        assert_eq!(drawn["a"], BTreeSet::from(["b".to_owned(), "c".to_owned()]));
        assert!(drawn["b"].is_empty());
    }

    /// Invariant 6: the five rooms at the bottom depend on none of ours.
    #[test]
    fn the_bottom_rooms_have_no_arrows() {
        let page = std::fs::read_to_string(crate::tree::root().unwrap().join("ARCHITECTURE.md")).unwrap();
        let drawn = table(&page);
        for room in ["wire", "identity", "verify", "emulator", "localdb"] {
            assert!(drawn[room].is_empty(), "{room}");
        }
        assert_eq!(check(&crate::tree::root().unwrap()).unwrap(), Vec::<String>::new());
    }
}
