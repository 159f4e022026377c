use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of the program under test, built if it is not up to date.
pub fn pgentra() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| build(&["--package", "pgentra", "--bin", "pgentra"])).clone()
}

/// An example program of one of our packages, built if it is not up to date.
pub fn example(package: &str, name: &str) -> PathBuf {
    build(&["--package", package, "--example", name])
}

/// The same for an example that needs a feature.
pub fn example_with(package: &str, name: &str, feature: &str) -> PathBuf {
    build(&["--package", package, "--example", name, "--features", feature])
}

/// Cargo reports the program's path, in the profile of this test.
fn build(what: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--message-format=json"]).args(what);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("cannot run cargo");
    assert!(output.status.success(), "cargo could not build {what:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .expect("cargo names the program it built")
}
