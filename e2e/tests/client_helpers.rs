//! The helpers of `clients/` for test suites in other languages.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Lab, client, have};

/// The longest helper in lines.
const LONGEST: usize = 40;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients").canonicalize().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the helper's own test, and checks that nothing of its local cloud is left.
fn passes(words: &[&str], variables: &[(&str, &str)]) {
    let lab = Lab::new();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    lab.program(words).envs(variables).within(180).done().ok();
    lab.await_processes();
}

#[test]
fn the_plugin_for_pytest_starts_a_cloud() {
    if have(&["python"]) {
        let python = client("venv/bin/python");
        let words = [text(&python), "-m", "pytest", "-q", "-p", "no:cacheprovider"];
        let folder = folder().join("pytest");
        let variables = [("PYTHONPATH", text(&folder)), ("PYTHONDONTWRITEBYTECODE", "1")];
        passes(&[&words[..], &[text(&folder)]].concat(), &variables);
    }
}

#[test]
fn the_helper_for_node_starts_a_cloud() {
    if have(&["node"]) {
        let (node, test) = (client("venv/bin/node"), folder().join("node/pgentra-local.test.cjs"));
        passes(&[text(&node), "--test", text(&test)], &[]);
    }
}

#[test]
fn the_helper_for_go_starts_a_cloud() {
    if have(&["go"]) {
        let folder = folder().join("go");
        let script = "export PATH=$PATH:/usr/local/go/bin; cd \"$1\"; test -z \"$(gofmt -l .)\"; go test -count=1 ./...";
        passes(&["bash", "-euc", script, "script", text(&folder)], &[]);
    }
}

#[test]
fn the_extension_of_junit_starts_a_cloud() {
    if have(&["junit"]) {
        let jar = client("junit/junit-platform-console-standalone.jar");
        let folder = folder().join("junit5");
        let script = "javac -cp \"$1\" -d classes \"$2\"/*.java && java -jar \"$1\" execute --class-path classes --scan-class-path";
        passes(&["bash", "-euc", script, "script", text(&jar), text(&folder)], &[]);
    }
}

#[test]
fn each_helper_is_short_and_in_the_readme() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    for helper in [
        "pytest/pgentra_local.py",
        "node/pgentra-local.cjs",
        "go/pgentralocal.go",
        "junit5/PgentraLocal.java",
        "xunit/PgentraLocal.cs",
    ] {
        let lines = fs::read_to_string(folder().join(helper)).unwrap().lines().count();
        assert!(lines <= LONGEST, "{helper} has {lines} lines");
        assert!(readme.contains(&format!("({helper})")), "{helper}");
    }
}
