//! `cargo xtask platforms`: compiles what there is for systems on which no test runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

/// A system, and what is compiled for it.
struct Platform {
    triple: &'static str,
    /// The packages; all that they use is compiled too.
    packages: &'static [&'static str],
    /// What is not compiled, and why.
    without: &'static str,
}

const PLATFORMS: [Platform; 4] = [
    Platform { triple: "aarch64-unknown-linux-gnu", packages: &["pgentra"], without: "" },
    Platform { triple: "aarch64-apple-darwin", packages: &["pgentra"], without: "" },
    Platform { triple: "x86_64-apple-darwin", packages: &["pgentra"], without: "" },
    Platform {
        triple: "x86_64-pc-windows-gnu",
        packages: &["pgentra", "pgentra-verify"],
        without: "; without gateway, emulator, localdb and local, and so without `pgentra local` and `pgentra \
                  quickstart`: they need Unix sockets",
    },
];

/// What one run checks.
#[derive(Args)]
pub(crate) struct Options {
    /// The targets to check, each of which must then be checked; all that this machine can check if it is not given.
    #[arg(long, num_args = 1.., value_parser = PLATFORMS.map(|platform| platform.triple))]
    target: Vec<String>,
}

/// Runs `cargo check` for each target whose standard library is installed or can be built, and says which were left out.
///
/// # Errors
/// A target does not compile; or one that was named cannot be checked here.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let is_wanted = |platform: &&Platform| {
        options.target.is_empty() || options.target.iter().any(|wanted| wanted == platform.triple)
    };
    let folder = root.join("target/platforms");
    let mut lines = Vec::new();
    for platform in PLATFORMS.iter().filter(is_wanted) {
        let Some(library) = Library::of(platform.triple)? else {
            let why = format!(
                "neither Rust's standard library for it nor its source is installed: rustup target add {}, or rustup \
                 component add rust-src",
                platform.triple
            );
            ensure!(options.target.is_empty(), "{}: {why}", platform.triple);
            lines.push(format!("{:<28} left out: {why}", platform.triple));
            continue;
        };
        check(root, &folder, platform, &library)?;
        let (packages, without) = (platform.packages.join(" and "), platform.without);
        lines.push(format!(
            "{:<28} {packages} with its libraries: compiled {library}{without}",
            platform.triple
        ));
    }
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Where a target's standard library comes from.
enum Library {
    Installed,
    /// Compiled from its source, which has to be of this compiler.
    Built,
}

impl Library {
    fn of(triple: &str) -> Result<Option<Self>> {
        let installed = printed(&["--print", "target-libdir", "--target", triple])?;
        let has_core = fs::read_dir(&installed).into_iter().flatten().flatten();
        if has_core.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")) {
            return Ok(Some(Self::Installed));
        }
        let sysroot = PathBuf::from(printed(&["--print", "sysroot"])?);
        let source = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
        Ok(source.is_file().then_some(Self::Built))
    }
}

impl std::fmt::Display for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Installed => "with the installed standard library",
            Self::Built => "with the standard library, from rust-src",
        })
    }
}

fn check(root: &Path, folder: &Path, platform: &Platform, library: &Library) -> Result<()> {
    let triple = platform.triple;
    let mut command = Command::new(env!("CARGO"));
    command.args(["check", "--locked", "--target", triple]).current_dir(root);
    command.args(platform.packages.iter().flat_map(|name| ["--package", name]));
    // A folder of its own: a build of the standard library takes another mode of the compiler, for all crates.
    command.env("CARGO_TARGET_DIR", folder);
    if let Library::Built = library {
        command.arg("-Zbuild-std").env("RUSTC_BOOTSTRAP", "1");
    }
    let stubs = stubs(&folder.join("cc"))?;
    let name = triple.replace('-', "_");
    command.env(format!("CC_{name}"), stubs.join("cc")).env(format!("AR_{name}"), stubs.join("ar"));
    // Without it, the build scripts for macOS look for Apple's tools.
    command.env("SDKROOT", &stubs);
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "{triple} does not compile");
    Ok(())
}

/// Stands for a C compiler: makes an empty file of each output. `cargo check` uses none of them.
const CC: &str = r#"#!/bin/sh
for word in "$@"; do
  case $word in
    -E) exec cc -E "$(for last; do :; done; printf %s "$last")" ;;
    --version) echo "no compiler"; exit 0 ;;
  esac
done
while [ $# -gt 0 ]; do
  case $1 in
    -o) : > "$2" ;;
  esac
  shift
done
"#;

/// Stands for `ar`: the archive is the first word that names one.
const AR: &str = r#"#!/bin/sh
for word in "$@"; do
  case $word in
    *.a) : > "$word"; exit 0 ;;
  esac
done
"#;

fn stubs(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    for (name, text) in [("cc", CC), ("ar", AR)] {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    }
    Ok(folder.to_owned())
}

/// What the compiler prints in one line.
fn printed(words: &[&str]) -> Result<String> {
    let said = rustc().args(words).output().context("cannot run rustc")?;
    if !said.status.success() {
        bail!("rustc {}: {}", words.join(" "), String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// The compiler that cargo uses.
#[expect(clippy::disallowed_methods, reason = "cargo takes its compiler from the environment")]
pub(crate) fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}
