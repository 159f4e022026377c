//! Finds the archive with the embedded PostgreSQL and puts it where `include_bytes!` can reach it.
//!
//! The archive comes inside a crate that holds no code (see Cargo.toml), so that cargo alone downloads and checks it.
//! Such a crate cannot say where it lies, therefore cargo is asked: about a manifest that names nothing else, so that
//! the answer needs no crate which this build did not already bring here.
#![expect(clippy::disallowed_methods, reason = "a build script talks with cargo through its environment")]
#![expect(clippy::panic, reason = "a build script has no other way to fail")]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{CargoOpt, MetadataCommand};

/// Must agree with Cargo.toml.
const ARTIFACT_VERSION: &str = "0.2.7";
/// Where the archive lies in each artifact crate.
const ARCHIVE: &str = "lib/pglite-runtime.tar.zst";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(embedded_postgres)");
    if env::var_os("CARGO_FEATURE_EMBEDDED").is_none() {
        return;
    }
    let Some(artifact) = artifact_crate(&var("CARGO_CFG_TARGET_OS"), &var("CARGO_CFG_TARGET_ARCH"), &libc())
    else {
        return;
    };
    let out = PathBuf::from(var("OUT_DIR"));
    match locate(artifact, &out)
        .and_then(|folder| Ok(fs::copy(folder.join(ARCHIVE), out.join("postgres.tar.zst"))?))
    {
        Ok(_) => println!("cargo::rustc-cfg=embedded_postgres"),
        Err(error) => panic!(
            "the embedded PostgreSQL of crate {artifact} {ARTIFACT_VERSION} was not found ({error}); \
             run `cargo fetch`, or build without the feature `embedded` and use an installed PostgreSQL"
        ),
    }
}

/// The systems for which Cargo.toml names an artifact crate.
fn artifact_crate(os: &str, arch: &str, libc: &str) -> Option<&'static str> {
    match (os, arch, libc) {
        ("linux", "x86_64", "gnu") => Some("pglite-rs-lib-x86_64-unknown-linux-gnu"),
        ("linux", "aarch64", "gnu") => Some("pglite-rs-lib-aarch64-unknown-linux-gnu"),
        ("macos", "x86_64", _) => Some("pglite-rs-lib-x86_64-apple-darwin"),
        ("macos", "aarch64", _) => Some("pglite-rs-lib-aarch64-apple-darwin"),
        _ => None,
    }
}

/// The folder in which cargo keeps the artifact crate: its registry, or wherever source replacement points to.
fn locate(artifact: &str, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let question = out.join("locate");
    fs::create_dir_all(&question)?;
    fs::write(question.join("lib.rs"), "")?;
    let manifest = question.join("Cargo.toml");
    fs::write(
        &manifest,
        format!(
            "[package]\nname = \"locate\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n\
             [dependencies]\n{artifact} = \"={ARTIFACT_VERSION}\"\n[workspace]\n"
        ),
    )?;
    let answer = MetadataCommand::new()
        .cargo_path(var("CARGO"))
        .manifest_path(manifest)
        // cargo reads its configuration (a vendor folder, a mirror) upwards from here
        .current_dir(var("CARGO_MANIFEST_DIR"))
        .features(CargoOpt::AllFeatures)
        .other_options(
            ["--offline", "--filter-platform"]
                .map(String::from)
                .into_iter()
                .chain([var("TARGET")])
                .collect::<Vec<_>>(),
        )
        .exec()?;
    let package = answer.packages.iter().find(|package| package.name.as_str() == artifact);
    let folder =
        package.and_then(|package| package.manifest_path.parent()).ok_or("cargo does not name it")?;
    Ok(folder.into())
}

/// Which C library the target has; empty on systems that have but one.
fn libc() -> String {
    env::var("CARGO_CFG_TARGET_ENV").unwrap_or_default()
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for a build script"))
}
