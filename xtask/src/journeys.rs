//! The journeys of ARCHITECTURE.md: the files that a reader of one task opens, in call order.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::imports::Workspace;

/// Most files of a journey: with more, no person keeps the path in mind.
const FILES: usize = 40;
/// Most returns to a file that the journey has named before.
const RETURNS: usize = 2;
/// The heading of the section.
const SECTION: &str = "## Journeys";
/// The first line of a list of files.
const FENCE: &str = "```journey";

/// One task, and the files that its reader opens.
#[derive(Debug, PartialEq)]
pub(crate) struct Journey {
    name: String,
    /// Paths below `crates/`.
    steps: Vec<String>,
}

impl Journey {
    fn files(&self) -> usize {
        self.steps.iter().collect::<BTreeSet<_>>().len()
    }

    /// How often the journey comes back to a file that it has named before.
    fn returns(&self) -> usize {
        self.steps.len() - self.files()
    }
}

/// The journeys of ARCHITECTURE.md.
pub(crate) fn read(root: &Path) -> Result<Vec<Journey>> {
    let page = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    parse(&page)
}

/// A paragraph that begins with a bold name, and a list with a file in each line.
fn parse(page: &str) -> Result<Vec<Journey>> {
    let (_, section) = page.split_once(SECTION).context("ARCHITECTURE.md has no journeys")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut journeys: Vec<Journey> = Vec::new();
    let mut is_list = false;
    for line in section.lines() {
        if !is_list {
            if let Some((name, _)) = line.strip_prefix("**").and_then(|rest| rest.split_once(".**")) {
                journeys.push(Journey { name: name.replace('`', ""), steps: Vec::new() });
            }
            is_list = line == FENCE;
        } else if line == "```" {
            is_list = false;
        } else {
            let journey = journeys.last_mut().context("a list of files without a name")?;
            journey.steps.push(line.trim().to_owned());
        }
    }
    Ok(journeys)
}

/// Every file of a journey that is missing or that no file before it leads to, and every journey
/// that is too long.
pub(crate) fn check(root: &Path, workspace: &Workspace, journeys: &[Journey]) -> Vec<String> {
    let exists = |file: &str| root.join("crates").join(file).is_file();
    let leads_to = |from: &str, to: &str| {
        let imported = workspace.imported_by(from);
        imported.contains(to) || !imported.is_disjoint(&workspace.extended_by(to))
    };
    journeys.iter().flat_map(|journey| faults(journey, exists, leads_to)).collect()
}

fn faults(
    journey: &Journey,
    exists: impl Fn(&str) -> bool,
    leads_to: impl Fn(&str, &str) -> bool,
) -> Vec<String> {
    let Journey { name, steps } = journey;
    let mut faults = Vec::new();
    for (number, file) in steps.iter().enumerate() {
        if !exists(file) {
            faults.push(format!("journey {name}: crates/{file} does not exist"));
        } else if number > 0 && !steps[..number].iter().any(|before| leads_to(before, file)) {
            faults.push(format!("journey {name}: no file before crates/{file} imports it"));
        }
    }
    let (files, returns) = (journey.files(), journey.returns());
    if files == 0 {
        faults.push(format!("journey {name}: no list of files"));
    }
    if files > FILES || returns > RETURNS {
        faults.push(format!(
            "journey {name}: {files} files and {returns} returns; at most {FILES} and {RETURNS}"
        ));
    }
    faults
}

/// Files and returns of each journey, the longest one last.
pub(crate) fn table(mut journeys: Vec<Journey>) -> String {
    journeys.sort_by_key(Journey::files);
    let width = journeys.iter().map(|journey| journey.name.len()).max().unwrap_or_default();
    let mut table = format!("{:width$}  files  returns\n", "journey");
    for journey in &journeys {
        // Writing to a string does not fail.
        let _ = writeln!(table, "{:width$}  {:>5}  {:>7}", journey.name, journey.files(), journey.returns());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n\n## Journeys\n\n**A client.** First `a`.\n\n```journey\na/src/lib.rs\n  b/src/x.rs\n    \
         b/src/y.rs\n  a/src/z.rs\n  b/src/x.rs\n```\n\n**`two` words.** Nothing.\n\n## Next\n\n```journey\nno/src/lib.rs\n```\n";

    #[test]
    fn a_list_is_read_in_its_order() {
        let journeys = parse(PAGE).unwrap();
        assert_eq!(journeys.len(), 2);
        assert_eq!(journeys[0].name, "A client");
        let files = ["a/src/lib.rs", "b/src/x.rs", "b/src/y.rs", "a/src/z.rs", "b/src/x.rs"];
        assert_eq!(journeys[0].steps, files);
        assert_eq!((journeys[0].files(), journeys[0].returns()), (4, 1));
        assert_eq!(journeys[1], Journey { name: "two words".to_owned(), steps: Vec::new() });
        let table = table(journeys);
        assert_eq!(table.lines().last(), Some("A client       4        1"), "{table}");
    }

    #[test]
    fn what_is_missing_or_that_no_file_leads_to_is_a_fault() {
        let journeys = parse(PAGE).unwrap();
        let of = |journey: &Journey, missing: &str, from: &str, to: &[&str]| {
            let leads_to = |before: &str, file: &str| before == from && to.contains(&file);
            faults(journey, |file| file != missing, leads_to).join("\n")
        };
        let all = ["b/src/x.rs", "b/src/y.rs", "a/src/z.rs"];
        assert_eq!(of(&journeys[0], "", "a/src/lib.rs", &all), "");
        let found = of(&journeys[0], "a/src/z.rs", "a/src/lib.rs", &all);
        assert_eq!(found, "journey A client: crates/a/src/z.rs does not exist");
        // A file that comes later leads to nothing.
        let found = of(&journeys[0], "", "b/src/y.rs", &all);
        assert!(found.contains("no file before crates/b/src/y.rs imports it"), "{found}");
        assert!(!found.contains("crates/a/src/z.rs"), "{found}");
        assert_eq!(of(&journeys[1], "", "", &[]), "journey two words: no list of files");
    }

    #[test]
    fn a_journey_may_not_be_too_long() {
        let long = |files: usize, returns: usize| {
            let steps = (0..files).map(|number| number.to_string());
            let steps = steps.chain(std::iter::repeat_n("0".to_owned(), returns)).collect();
            faults(&Journey { name: "long".to_owned(), steps }, |_| true, |_, _| true).len()
        };
        assert_eq!((long(FILES, RETURNS), long(FILES + 1, 0), long(FILES, RETURNS + 1)), (0, 1, 1));
    }
}
