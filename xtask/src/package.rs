//! The packages as they would be published: each is built from what its package holds, and from the packages beside it.

use std::ffi::{OsStr, OsString};
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
    let built = metadata.target_directory.as_std_path().join("debug");
    forget_unpacked(&unpacked, &folders)?;
    forget_built(&built, &unpacked)?;
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

/// Removes the fingerprints of what was built from unpacked packages of local registries. Cargo does not look whether
/// the sources of a registry have changed, and so a run would link what an earlier run has built.
fn forget_built(built: &Path, sources: &Path) -> Result<()> {
    let Ok(outputs) = fs::read_dir(built.join("deps")) else { return Ok(()) };
    let local = format!("{}/-", sources.display());
    for output in outputs {
        let path = output?.path();
        if path.extension() != Some(OsStr::new("d")) || !fs::read_to_string(&path)?.contains(&local) {
            continue;
        }
        // The file is called NAME-HASH.d, with `_` where the package has `-`; the folder has the same hash.
        let Some((name, hash)) =
            path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.rsplit_once('-'))
        else {
            continue;
        };
        let fingerprint = built.join(".fingerprint").join(format!("{}-{hash}", name.replace('_', "-")));
        if fingerprint.is_dir() {
            fs::remove_dir_all(&fingerprint)
                .with_context(|| format!("cannot remove {}", fingerprint.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{forget_built, forget_unpacked};

    #[test]
    fn only_what_was_built_from_local_registries_is_built_again() {
        let built = tempfile::tempdir().expect("a folder");
        let sources = built.path().join("registry/src");
        let local = format!("x.rlib: {}/-1a/our-crate-0.1.0/src/lib.rs", sources.display());
        let remote = format!("x.rlib: {}/index.example-1a/theirs-1.0.0/src/lib.rs", sources.display());
        fs::create_dir_all(built.path().join("deps")).expect("made");
        for (name, text) in
            [("our_crate-aa", &*local), ("our_crate-bb", "x: crates/our"), ("theirs-cc", &remote)]
        {
            fs::write(built.path().join("deps").join(name).with_extension("d"), text).expect("written");
            fs::create_dir_all(built.path().join(".fingerprint").join(name.replace('_', "-"))).expect("made");
        }
        forget_built(built.path(), &sources).expect("removed");
        let left = |name: &str| built.path().join(".fingerprint").join(name).exists();
        assert!(!left("our-crate-aa"));
        assert!(left("our-crate-bb") && left("theirs-cc"));
        forget_built(&built.path().join("absent"), &sources).expect("nothing to do");
    }

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
