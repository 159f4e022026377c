//! Every numbered invariant of ARCHITECTURE.md is cited by a test.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tree;

/// Every invariant that no test cites.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let sources = tree::rust(root)?;
    Ok(numbers(&page)
        .into_iter()
        .filter(|number| !sources.iter().any(|(_, text)| cites(text, *number)))
        .map(|number| {
            format!("invariant {number} of ARCHITECTURE.md: no test cites it (`/// Invariant {number}: …`)")
        })
        .collect())
}

/// The numbers of the list under "What must never be".
fn numbers(page: &str) -> Vec<usize> {
    page.lines()
        .skip_while(|line| *line != "## What must never be")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.split_once(". ")?.0.parse().ok())
        .collect()
}

/// Whether a doc comment "Invariant N:" stands directly above a test.
fn cites(text: &str, number: usize) -> bool {
    let mut lines = text.lines().map(str::trim);
    let citation = format!("/// Invariant {number}:");
    while let Some(line) = lines.next() {
        if line.starts_with(&citation) {
            let attributes =
                lines.by_ref().take_while(|line| line.starts_with("///") || line.starts_with("#["));
            if attributes.into_iter().any(|line| line.starts_with("#[test]") || line.contains("::test")) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_citation_counts_only_above_a_test() {
        assert!(cites("/// Invariant 7: kept.\n#[tokio::test]\nasync fn a() {}\n", 7));
        assert!(!cites("/// Invariant 7: kept.\nfn a() {}\n", 7));
        assert!(!cites("/// Invariant 77: kept.\n#[test]\nfn a() {}\n", 7));
    }

    #[test]
    fn the_list_is_read() {
        assert_eq!(numbers("x\n## What must never be\n\n1. a\n   b\n2. c\n## Next\n3. d\n"), [1, 2]);
    }
}
