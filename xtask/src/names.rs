//! Restricts which files may quote names and which may write to a terminal.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tree;

/// Patterns that only one file may contain, outside of tests: folders to search, pattern, file,
/// reason.
const RULES: [(&[&str], &str, &str, &str); 5] = [
    (
        &[
            "crates/azure/src",
            "crates/cli/src",
            "crates/connect/src",
            "crates/gateway-config/src",
            "crates/identity/src",
            "crates/proxy-config/src",
            "crates/roles/src",
            "crates/settings/src",
        ],
        "\\\"{",
        "crates/connect/src/quote.rs",
        "puts a name between quotes itself; pgentra_connect::quote has a function for each destination",
    ),
    (&["crates"], "\\\\connect", "crates/roles/src/script.rs", "writes a command of psql's"),
    (&["crates"], "anstream", "crates/cli/src/output.rs", "writes through what takes codes out of data"),
    (
        &["crates/cli/src"],
        "io::stdout()",
        "crates/cli/src/output.rs",
        "writes results past what escapes them",
    ),
    (&["crates/cli/src"], "\\x1b[", "crates/cli/src/text.rs", "writes a terminal's codes itself"),
];

/// Every place that breaks one of the rules.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    Ok(faults(&tree::rust(root)?))
}

fn faults(sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in sources {
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for (folders, words, only, why) in RULES {
            let is_inside =
                folders.iter().any(|folder| path.starts_with(folder)) && !path.ends_with("tests.rs");
            if is_inside && !is_test && path != Path::new(only) {
                let lines = code.lines().enumerate().filter(|(_, line)| line.contains(words));
                faults.extend(lines.map(|(number, _)| format!("{}:{}: {why}", path.display(), number + 1)));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, text: &str) -> usize {
        faults(&[(PathBuf::from(path), text.to_owned())]).len()
    }

    #[test]
    fn names_have_one_way_into_a_text() {
        for (path, text) in [
            ("crates/roles/src/plan.rs", r#"format!("the role \"{name}\"")"#),
            ("crates/cli/src/role/mod.rs", r#"format!("the role \"{}\"", name)"#),
            ("crates/roles/src/apply.rs", r#"format!("\\connect {}", quoted(name))"#),
            ("crates/cli/src/command/query.rs", "anstream::stdout().lock()"),
            ("crates/cli/src/command/query.rs", "std::io::stdout().lock()"),
            ("crates/cli/src/doctor/render.rs", r#"format!("\x1b[1m{text}")"#),
        ] {
            assert!(check_one(path, text) > 0, "{path}: {text}");
            let test = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{ {text} }}");
            assert_eq!(check_one(path, &test), 0, "{path}: {text}");
        }
        assert_eq!(check(&tree::root().unwrap()).unwrap(), Vec::<String>::new());
    }
}
