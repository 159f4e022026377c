//! Restricts which files may read the clock and the environment, and forbids signing in `verify`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tree;

/// The only files that may relax clippy's disallowed methods: the system access itself, build
/// scripts, and tests or examples that run as their own process.
const SEAMS: [&str; 7] = [
    "crates/system/src/clock.rs",
    "crates/system/src/env.rs",
    // The exit code of another program, which has more bits than `main` can return.
    "crates/cli/src/platform/windows.rs",
    "crates/localdb/build.rs",
    "crates/localdb/tests/killed.rs",
    "crates/emulator/examples/serve.rs",
    "e2e/src/client.rs",
];
/// The names of the crypto library's signing types.
const SIGNING: [&str; 4] = ["KeyPair", "RsaKeyPair", "hmac::", "EncodingKey"];

/// Every other file that reads the clock or the environment, and every signing name in `verify`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    Ok(faults(&tree::rust(root)?))
}

fn faults(sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in
        sources.iter().filter(|(path, _)| !path.starts_with("xtask") && !path.starts_with("bench"))
    {
        let name = path.display().to_string();
        if text.contains("clippy::disallowed_methods") && !SEAMS.contains(&name.as_str()) {
            faults.push(format!("{name}: relaxes the ban on the clock and the environment; it is no seam"));
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if path.starts_with("crates/verify/src") && SIGNING.iter().any(|word| code.contains(word)) {
            faults.push(format!("{name}: names what can sign; `verify` cannot mint"));
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

    /// Invariant 4: only the files of SEAMS read the clock and the environment.
    #[test]
    fn only_seams_read_the_clock_and_the_environment() {
        assert_eq!(check_one("crates/connect/src/dial.rs", "#[expect(clippy::disallowed_methods)]"), 1);
        assert_eq!(check_one("crates/system/src/clock.rs", "#[expect(clippy::disallowed_methods)]"), 0);
        let bans = std::fs::read_to_string(tree::root().unwrap().join("clippy.toml")).unwrap();
        for method in ["SystemTime::now", "Instant::now", "env::var\"", "env::var_os", "env::vars\""] {
            assert!(bans.contains(method), "{method}");
        }
        assert_eq!(check(&tree::root().unwrap()).unwrap(), Vec::<String>::new());
    }

    /// Invariant 3: `verify` names no signing type.
    #[test]
    fn verify_cannot_mint() {
        assert_eq!(check_one("crates/verify/src/keys.rs", "use aws_lc_rs::rsa::KeyPair;"), 1);
        assert_eq!(
            check_one(
                "crates/verify/src/keys.rs",
                "#[cfg(test)]\nmod tests { use aws_lc_rs::rsa::KeyPair; }"
            ),
            0
        );
        assert_eq!(check(&tree::root().unwrap()).unwrap(), Vec::<String>::new());
    }
}
