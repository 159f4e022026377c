//! The binaries: static, and the same bytes wherever they are built.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::release::{Release, Target};
use crate::platforms::rustc;
use crate::tree::cargo_home;

/// The binaries for one system.
pub(crate) struct Built {
    pub(crate) target: &'static Target,
    /// With the embedded PostgreSQL, for `quickstart` and `local`.
    pub(crate) full: PathBuf,
    /// Without it: smaller, for servers.
    pub(crate) small: PathBuf,
    /// In the table of artefacts.
    pub(crate) how: String,
}

/// Builds both binaries, or says why this machine cannot.
///
/// # Errors
/// The build fails although this machine has all that it takes.
pub(crate) fn binaries(release: &Release, target: &'static Target) -> Result<Result<Built, String>> {
    if let Some(missing) = missing(target) {
        return Ok(Err(missing));
    }
    let folder = release.stage().join(target.triple);
    fs::create_dir_all(&folder)?;
    let (full, small) = (folder.join("pgentra"), folder.join("pgentra-no-postgresql"));
    build(release, target, ("pgentra", &["--no-default-features"]), &small)?;
    build(release, target, ("pgentra", &[]), &full)?;
    let how = format!("static (crt-static), profile {}, {}", release.profile, rustc_version()?);
    Ok(Ok(Built { target, full, small, how }))
}

/// Builds the operator for Kubernetes, on a machine that has built the other binaries.
///
/// # Errors
/// The build fails.
pub(crate) fn operator(release: &Release, target: &'static Target) -> Result<PathBuf> {
    let binary = release.stage().join(target.triple).join("pgentra-operator");
    build(release, target, ("pgentra-operator", &[]), &binary)?;
    Ok(binary)
}

/// What this machine lacks for a build.
fn missing(target: &Target) -> Option<String> {
    let asked = rustc().args(["--print", "target-libdir", "--target", target.triple]).output();
    let library =
        asked.map(|said| PathBuf::from(String::from_utf8_lossy(&said.stdout).trim())).unwrap_or_default();
    if !library.is_dir() {
        return Some(format!(
            "Rust's standard library for {0} is not installed: rustup target add {0}",
            target.triple
        ));
    }
    if !is_native(target) && Command::new(target.cc).arg("--version").output().is_err() {
        return Some(format!("no linker {0}: apt-get install gcc-{1}-linux-gnu", target.cc, target.arch));
    }
    None
}

/// Runs the binary, through cargo's `CARGO_TARGET_…_RUNNER` if that names a program such as an emulator.
#[expect(clippy::disallowed_methods, reason = "cargo's own variable")]
pub(crate) fn runs(built: &Built) -> Command {
    let runner =
        std::env::var(format!("CARGO_TARGET_{}_RUNNER", in_variables(built.target))).unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.args(words).arg(&built.full);
            command
        }
        None => Command::new(&built.full),
    }
}

/// The target's name in the names of cargo's variables.
fn in_variables(target: &Target) -> String {
    target.triple.to_uppercase().replace('-', "_")
}

/// Whether programs for the target run on this machine.
pub(crate) fn is_native(target: &Target) -> bool {
    target.triple.starts_with(std::env::consts::ARCH)
}

fn build(release: &Release, target: &Target, (package, features): (&str, &[&str]), to: &Path) -> Result<()> {
    let names = names(release, target)?;
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "rustc",
        "--locked",
        "--package",
        package,
        "--bin",
        package,
        "--profile",
        &release.profile,
    ]);
    command.args(["--target", target.triple]).args(features).current_dir(&release.root);
    command.arg("--").arg(format!("-Clink-arg={}", names.display()));
    for (name, value) in environment(release, target)? {
        command.env(name, value);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "the build for {} failed", target.triple);
    let from = release.target_folder().join(target.triple).join(&release.profile).join(package);
    fs::copy(&from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Compiles how a static program looks up names: see `deploy/static/names.c`.
fn names(release: &Release, target: &Target) -> Result<PathBuf> {
    let object = release.stage().join(target.triple).join("names.o");
    let compiler = if is_native(target) { "cc" } else { target.cc };
    let status = Command::new(compiler)
        .args(["-O2", "-fPIE", "-Wall", "-Werror", "-c", "deploy/static/names.c", "-o"])
        .arg(&object)
        .current_dir(&release.root)
        .status()
        .with_context(|| format!("cannot run {compiler}"))?;
    ensure!(status.success(), "{compiler} does not compile deploy/static/names.c");
    // Cargo makes the names of symbols out of its arguments: an absolute path would change the bytes with the folder.
    Ok(object.strip_prefix(&release.root).map(Path::to_path_buf).unwrap_or(object))
}

/// Static, and with paths that do not depend on this machine: in debug information, and in the messages of the C code.
fn environment(release: &Release, target: &Target) -> Result<Vec<(String, OsString)>> {
    let root = release.root.display().to_string();
    let built = release.target_folder().display().to_string();
    let cargo = cargo_home()?.display().to_string();
    let mut folders = vec![(&root, "/pgentra"), (&cargo, "/cargo")];
    if !release.target_folder().starts_with(&release.root) {
        folders.push((&built, "/pgentra/target"));
    }
    let remaps = folders.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
    let flags: Vec<_> = std::iter::once("-Ctarget-feature=+crt-static".to_owned()).chain(remaps).collect();
    let prefixes: Vec<_> =
        folders.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    let mut variables = vec![
        ("CARGO_ENCODED_RUSTFLAGS".to_owned(), flags.join("\x1f").into()),
        ("CFLAGS".to_owned(), prefixes.join(" ").into()),
        // The C code takes no date; another value after each commit would build it again.
        ("SOURCE_DATE_EPOCH".to_owned(), "0".into()),
    ];
    if !is_native(target) {
        variables.push((format!("CARGO_TARGET_{}_LINKER", in_variables(target)), target.cc.into()));
        variables.push((format!("CC_{}", target.triple.replace('-', "_")), target.cc.into()));
    }
    Ok(variables)
}

fn rustc_version() -> Result<String> {
    let said = rustc().arg("--version").output().context("cannot run rustc")?;
    Ok(String::from_utf8_lossy(&said.stdout).split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}
