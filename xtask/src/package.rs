//! The packages as they would be published: each is built from what its package holds, and from the packages beside it.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use cargo_metadata::MetadataCommand;

use crate::test::cargo;

/// Packages every crate that may be published and builds it from its package, without network.
///
/// # Errors
/// A file that is outside of its package, or a dependency without a version.
pub(crate) fn run(root: &Path) -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    let packages = metadata.workspace_packages();
    let published = packages.iter().filter(|package| package.publish.is_none());
    let names = published.flat_map(|package| ["--package".to_owned(), package.name.to_string()]);
    // The tree may have changes that are not committed: what is packaged is what is there.
    let words = ["package", "--quiet", "--locked", "--offline", "--allow-dirty"].map(str::to_owned);
    let arguments: Vec<_> = words.into_iter().chain(names).map(OsString::from).collect();
    cargo(root, &arguments)
}
