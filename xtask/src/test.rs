//! The test command: installs what the tests need, then runs all of them.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Features of `connect` for connection pools. They are built separately, so the tests before show
/// that the crates compile without them.
const POOLS: &str = "deadpool,bb8,diesel-async,sqlx,sea-orm";

/// Installs the real clients, builds the binary for the end-to-end tests and runs every test of the
/// workspace.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    println!("== clients for the end-to-end tests");
    let installed =
        Command::new("bash").arg("e2e/setup.sh").current_dir(root).status().context("cannot run bash")?;
    ensure!(installed.success(), "e2e/setup.sh could not install what the end-to-end tests need; see above");
    println!("== the binary that the end-to-end tests drive");
    cargo(root, ["build", "--locked", "--package", "pgentra"].map(OsString::from).as_slice())?;
    println!("== unit, property, scenario and end-to-end tests");
    // A long run reports all of its failures.
    let words = ["test", "--locked", "--workspace", "--no-fail-fast"];
    let mut test: Vec<OsString> = words.map(OsString::from).to_vec();
    test.extend(arguments.iter().map(OsString::from));
    cargo(root, &test)?;
    println!("== connection pools over three token lifetimes");
    let mut pools: Vec<OsString> =
        ["test", "--locked", "--package", "pools", "--features", POOLS].map(OsString::from).to_vec();
    pools.extend(arguments.iter().map(OsString::from));
    cargo(root, &pools)
}

/// Runs cargo in the workspace. The error contains the arguments.
pub(crate) fn cargo(root: &Path, arguments: &[OsString]) -> Result<()> {
    let status =
        Command::new(env!("CARGO")).args(arguments).current_dir(root).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {arguments:?} failed ({status})");
    Ok(())
}
