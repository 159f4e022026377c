//! Limits for the length of files and crates, and forbidden file names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tree;

/// Most lines of a file, tests not counted.
const FILE_LINES: usize = 800;
/// Most lines of code in a crate, without tests, comments and blank lines: a larger crate has more
/// than one responsibility.
const CRATE_LINES: usize = 5_500;
/// The same for the command line: a set of independent commands that no crate may import.
const COMMAND_LINES: usize = 11_800;
/// The same for the emulator: independent endpoints around one state, and what it has given out.
const EMULATOR_LINES: usize = 7_900;
/// File names that say nothing about the content.
const FORBIDDEN: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];

/// Every file over its budget, with a forbidden name, or that holds a private key.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut crates: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in tree::rust(root)? {
        let name = path.display();
        let lines = code_lines(&path, &text);
        if lines > FILE_LINES {
            faults.push(format!("{name}: {lines} lines without tests; at most {FILE_LINES}"));
        }
        if let Some(name) =
            path.to_string_lossy().strip_prefix("crates/").and_then(|rest| rest.split('/').next())
        {
            let code = text.lines().take(lines).filter(|line| !is_blank_or_comment(line)).count();
            *crates.entry(name.to_owned()).or_default() += code;
        }
    }
    for (name, lines) in crates {
        let most = match &*name {
            "cli" => COMMAND_LINES,
            "emulator" => EMULATOR_LINES,
            _ => CRATE_LINES,
        };
        if lines > most {
            faults.push(format!("crates/{name}: {lines} lines of code without tests; at most {most}"));
        }
    }
    for path in tree::files(root)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.components().any(|part| FORBIDDEN.contains(&&*part.as_os_str().to_string_lossy()))
            || FORBIDDEN.contains(&stem.as_str())
        {
            faults.push(format!("{}: a name that says nothing", path.display()));
        }
        let bytes = std::fs::read(root.join(&path))?;
        if holds_private_key(&String::from_utf8_lossy(&bytes)) {
            faults.push(format!("{}: holds a private key; generate it in the test", path.display()));
        }
    }
    Ok(faults)
}

/// The file with the most lines, tests not counted, and the number of its lines.
pub(crate) fn longest(root: &Path) -> Result<(PathBuf, usize)> {
    let files = tree::rust(root)?.into_iter().map(|(path, text)| (code_lines(&path, &text), path));
    files.max().map(|(lines, path)| (path, lines)).context("the workspace has no Rust file")
}

fn is_blank_or_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with("//")
}

/// Lines before the tests; a file of tests has none.
fn code_lines(path: &Path, text: &str) -> usize {
    let is_test = path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
        || path.starts_with("e2e");
    if is_test {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"))
        .unwrap_or(lines.len())
}

/// A PEM header followed by key material, not a mere mention of the header.
fn holds_private_key(text: &str) -> bool {
    text.lines().zip(text.lines().skip(1)).any(|(header, body)| {
        header.trim().starts_with("-----BEGIN")
            && header.trim().ends_with("PRIVATE KEY-----")
            && body.trim().len() >= 48
            && body.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        let text = "fn a() {}\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(code_lines(Path::new("crates/x/src/a.rs"), text), 2);
        assert_eq!(code_lines(Path::new("crates/x/tests/a.rs"), text), 0);
    }

    #[test]
    fn a_key_is_seen_and_a_mention_is_not() {
        let header = ["-----BEGIN ", "PRIVATE KEY-----"].concat();
        assert!(holds_private_key(&format!("{header}\n{}\n", "A".repeat(64))));
        assert!(!holds_private_key(&format!("{header}\nis what a key starts with\n")));
    }
}
