//! The stated minimum Rust version against the ones that the dependencies state.

use std::path::Path;

use anyhow::Result;
use cargo_metadata::semver::Version;
use cargo_metadata::{MetadataCommand, Package};

/// Every dependency that needs a newer Rust than the crates of `crates/` promise.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let options = vec!["--locked".to_owned()];
    let metadata = MetadataCommand::new().current_dir(root).other_options(options).exec()?;
    let members = metadata.workspace_packages();
    // A crate of tests may need more than the libraries, whose users have the promised version.
    let ours = members.iter().filter(|member| member.publish.is_none());
    let Some(promised) = ours.filter_map(|member| member.rust_version.as_ref()).min() else {
        return Ok(vec!["no crate states its rust-version".to_owned()]);
    };
    let is_foreign = |package: &&Package| package.source.is_some();
    let needs = metadata
        .packages
        .iter()
        .filter(is_foreign)
        .map(|package| (format!("{} {}", package.name, package.version), package.rust_version.as_ref()));
    Ok(newer(promised, needs))
}

fn newer<'a>(
    promised: &Version,
    needs: impl IntoIterator<Item = (String, Option<&'a Version>)>,
) -> Vec<String> {
    let needs = needs.into_iter().filter_map(|(name, needed)| Some((name, needed?)));
    needs
        .filter(|(_, needed)| *needed > promised)
        .map(|(name, needed)| format!("{name} needs Rust {needed}; rust-version promises {promised}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_needs_more_is_found() {
        let [promised, older, later] =
            [Version::new(1, 88, 0), Version::new(1, 9, 0), Version::new(1, 88, 1)];
        let needs = [
            ("a".to_owned(), Some(&older)),
            ("b".to_owned(), None),
            ("c".to_owned(), Some(&promised)),
            ("d".to_owned(), Some(&later)),
        ];
        assert_eq!(newer(&promised, needs), ["d needs Rust 1.88.1; rust-version promises 1.88.0"]);
    }
}
