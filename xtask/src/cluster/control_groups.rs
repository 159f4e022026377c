//! The control groups of the nodes, below a group of the run. They are not in a namespace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The file of a run with the name of its group.
const FILE: &str = "control-group";

const MOUNTED: &str = "/sys/fs/cgroup";

/// Whether groups can be made here.
pub(crate) fn are_allowed() -> bool {
    let hierarchies = hierarchies();
    let name = format!("pgentra-cluster-try-{}", std::process::id());
    let can_make = |hierarchy: &PathBuf| {
        let group = hierarchy.join(&name);
        fs::create_dir(&group).is_ok() && fs::remove_dir(&group).is_ok()
    };
    !hierarchies.is_empty() && hierarchies.iter().all(can_make)
}

/// Chooses the name of the group of a run. Two clusters on one machine have two.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn name(run: &Path, keeper: u32) -> Result<()> {
    Ok(fs::write(run.join(FILE), format!("pgentra-cluster-{keeper}"))?)
}

/// Makes the group of a node in every hierarchy, and returns its name.
///
/// # Errors
/// A hierarchy cannot be written to.
pub(crate) fn make(run: &Path, node: &str) -> Result<String> {
    let ours = fs::read_to_string(run.join(FILE)).context("the run has no name for its control group")?;
    let name = format!("{ours}/{node}");
    for hierarchy in hierarchies() {
        let mut group = hierarchy.clone();
        for part in name.split('/') {
            let parent = group.clone();
            group.push(part);
            fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
            // A new group of this hierarchy has no processor and no memory (cpuset of cgroup v1).
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read(parent.join(file))
                    && hierarchy.file_name().is_some_and(|name| name == "cpuset")
                {
                    fs::write(group.join(file), all)?;
                }
            }
            // cgroup v2: the groups below have the controllers that their parent passes on.
            if let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers"))
                && hierarchy == Path::new(MOUNTED)
            {
                let passed: Vec<String> =
                    controllers.split_whitespace().map(|name| format!("+{name}")).collect();
                fs::write(parent.join("cgroup.subtree_control"), passed.join(" "))?;
            }
        }
    }
    Ok(name)
}

/// Removes the groups of a run, whose processes have ended.
///
/// # Errors
/// A process is left in one.
pub(crate) fn remove(run: &Path) -> Result<()> {
    let Ok(ours) = fs::read_to_string(run.join(FILE)) else { return Ok(()) };
    // The kubelet makes the groups of pods in the hierarchy without controllers too.
    for hierarchy in mounted(&["cgroup", "cgroup2"]) {
        remove_below(&hierarchy.join(&ours))?;
    }
    Ok(())
}

fn remove_below(group: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_below(&path)?;
        }
    }
    // A process that was killed leaves its group a moment later.
    super::processes::until("a control group is empty", || fs::remove_dir(group).is_ok())
}

/// Where groups with controllers are: one place with cgroup v2, one for each controller with v1. The
/// hierarchy of v2 beside those of v1 has no controllers.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNTED);
    match root.join("cgroup.controllers").exists() {
        true => vec![root.to_owned()],
        false => mounted(&["cgroup"]),
    }
}

/// Where file systems of these types are mounted, among those of control groups.
fn mounted(types: &[&str]) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let place = Path::new(fields.next()?);
            (place.starts_with(MOUNTED) && types.contains(&fields.next()?)).then(|| place.to_owned())
        })
        .collect()
}
