//! The packages as they would be published: each is built from what its package holds, and from the packages beside it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;

use crate::test::cargo;
use crate::tree::cargo_home;

/// Packages every crate that may be published and builds it from its package, without network.
///
/// # Errors
/// A file that is outside of its package, or a dependency without a version.
pub(crate) fn run(root: &Path) -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    let packages = metadata.workspace_packages();
    let published = packages.iter().filter(|package| package.publish.is_none());
    let names = published.clone().flat_map(|package| ["--package".to_owned(), package.name.to_string()]);
    // The tree may have changes that are not committed: what is packaged is what is there.
    let words = ["package", "--quiet", "--locked", "--offline", "--allow-dirty"].map(str::to_owned);
    let arguments: Vec<_> = words.into_iter().chain(names).map(OsString::from).collect();
    let folders: Vec<_> = published.map(|package| format!("{}-{}", package.name, package.version)).collect();
    let unpacked = cargo_home()?.join("registry/src");
    forget_unpacked(&unpacked, &folders)?;
    let outcome = cargo(root, &arguments);
    forget_unpacked(&unpacked, &folders)?;
    outcome
}

/// Removes what cargo has unpacked of these packages. It takes a package that is unpacked as it is, even when the package
/// of the same version has changed since, and so a run would build what an earlier run has packed.
fn forget_unpacked(sources: &Path, folders: &[String]) -> Result<()> {
    let Ok(registries) = fs::read_dir(sources) else { return Ok(()) };
    for registry in registries {
        let registry = registry?;
        // A registry in a folder of this machine has no host: its name begins with the separator.
        if !registry.file_name().to_string_lossy().starts_with('-') {
            continue;
        }
        for unpacked in folders.iter().map(|folder| registry.path().join(folder)).filter(|path| path.is_dir())
        {
            fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::forget_unpacked;

    #[test]
    fn only_our_packages_of_local_registries_go() {
        let sources = tempfile::tempdir().expect("a folder");
        for folder in ["-1a/ours-0.1.0/src", "-1a/theirs-0.1.0", "index.example-1a/ours-0.1.0"] {
            fs::create_dir_all(sources.path().join(folder)).expect("made");
        }
        forget_unpacked(sources.path(), &["ours-0.1.0".to_owned(), "absent-0.1.0".to_owned()])
            .expect("removed");
        assert!(!sources.path().join("-1a/ours-0.1.0").exists());
        assert!(sources.path().join("-1a/theirs-0.1.0").exists());
        assert!(sources.path().join("index.example-1a/ours-0.1.0").exists());
    }

    #[test]
    fn no_registry_yet_is_no_error() {
        let sources = tempfile::tempdir().expect("a folder");
        forget_unpacked(&sources.path().join("absent"), &[]).expect("nothing to do");
    }
}
