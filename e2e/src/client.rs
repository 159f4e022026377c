use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// Whether all of `names` are installed. If not, a message is written past the test's captured
/// output, and the test should return.
///
/// Panics if CI=true, because a skipped test proves nothing, and if `e2e/setup.sh` was not run.
pub fn have(names: &[&str]) -> bool {
    let list = target().join("e2e-clients/missing");
    let list = fs::read_to_string(&list)
        .unwrap_or_else(|error| panic!("{}: {error}; run first: bash e2e/setup.sh", list.display()));
    let missing: Vec<&str> =
        list.lines().filter(|line| names.iter().any(|name| line.starts_with(&format!("{name}:")))).collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    assert!(!in_ci(), "{test} must run here, but: {missing:?}");
    // not a print macro: those are captured by the test harness
    let _ = writeln!(std::io::stderr(), "e2e: SKIPPED {test}: {}", missing.join("; "));
    false
}

/// A program or a file that `e2e/setup.sh` installed below `target/e2e-clients`.
pub fn client(path: &str) -> PathBuf {
    target().join("e2e-clients").join(path)
}

/// The build folder.
fn target() -> PathBuf {
    crate::pgentra().ancestors().nth(2).unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "the one variable that a test run takes from outside")]
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}
