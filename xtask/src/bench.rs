//! Builds pgentra and its peers and runs a benchmark of both.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::test::cargo;
use crate::{local_starts, pictures};

/// Runs the benchmark called `name`, against `pgentra` as it is packaged.
pub(crate) fn run(root: &Path, name: &str, arguments: &[String]) -> Result<()> {
    if name == "local" {
        return local_starts::run(root, arguments);
    }
    if matches!(name, "proxy" | "gateway") {
        let status = Command::new("bash").arg(root.join("bench/setup.sh")).status()?;
        ensure!(status.success(), "bench/setup.sh failed");
    }
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    cargo(root, &words(&["build", "--profile", "dist", "--locked", "--package", "pgentra"]))?;
    cargo(
        root,
        &words(&["build", "--release", "--locked", "--manifest-path", "bench/Cargo.toml", "--bin", name]),
    )?;
    let mut command = Command::new(root.join("bench/target/release").join(name));
    command.arg(root.join("target/dist/pgentra")).args(arguments).current_dir(root);
    // The Python SDK takes part where the end-to-end tests have installed it.
    let python = root.join("target/e2e-clients/venv/bin/python");
    if python.is_file() {
        command.env("PGENTRA_BENCH_PYTHON", python);
    } else if name == "token" {
        println!("(no row for Python: `cargo xtask test` installs its SDK)");
    }
    let status = command.status().with_context(|| format!("cannot run the benchmark {name}"))?;
    ensure!(status.success(), "the benchmark {name} failed");
    // The tables of the page may have changed.
    if matches!(name, "proxy" | "gateway") && arguments.iter().any(|argument| argument.starts_with("--write"))
    {
        pictures::write(root)?;
    }
    Ok(())
}
