//! The Debian package, made by cargo-deb: it knows Debian's scripts for systemd units.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::archive::{Entry, Tree};
use super::build::Built;
use super::release::Release;
use super::shelf::Shelf;
use crate::test::cargo;

/// A version that is known to make the same package from the same files.
const CARGO_DEB: &str = "3.8.0";

/// Makes the package of one system. Its list of files is in `crates/cli/Cargo.toml`.
///
/// # Errors
/// cargo-deb cannot be installed, or it fails.
pub(crate) fn make(release: &Release, built: &Built, files: &Tree, shelf: &mut Shelf) -> Result<()> {
    // Where that list finds them.
    let stage = release.stage().join("debian");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    for (path, _, entry) in files.entries() {
        if let Entry::File(content) = entry {
            let to = stage.join(path);
            fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            fs::write(to, content)?;
        }
    }
    let name = format!("pgentra_{}-{}_{}.deb", release.version, release.revision, built.target.debian);
    let package = release.stage().join(&name);
    let made = Command::new(cargo_deb(release)?)
        .args([
            "--locked",
            "--no-build",
            "--no-strip",
            "--package",
            "pgentra",
            "--target",
            built.target.triple,
        ])
        .args(["--profile", &release.profile, "--deb-revision", &release.revision.to_string(), "--output"])
        .arg(&package)
        .current_dir(&release.root)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .output()
        .context("cannot run cargo-deb")?;
    ensure!(made.status.success(), "cargo-deb failed: {}", String::from_utf8_lossy(&made.stderr));
    shelf.put(&name, &fs::read(&package)?, format!("cargo-deb {CARGO_DEB}"))
}

/// Installs cargo-deb below `target/`, once.
fn cargo_deb(release: &Release) -> Result<PathBuf> {
    let tools = release.target_folder().join("tools");
    let program = tools.join("bin/cargo-deb");
    if !program.exists() {
        // The debug build of this tool takes a quarter of the release build's time.
        let words =
            ["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--profile", "dev", "--quiet"];
        let mut arguments: Vec<OsString> = words.map(OsString::from).to_vec();
        arguments.extend(["--root".into(), tools.clone().into()]);
        arguments.extend(["--target-dir".into(), tools.join("build").into()]);
        cargo(&release.root, &arguments)?;
    }
    Ok(program)
}
