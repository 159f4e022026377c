//! Builds and runs the fuzz targets on every change, so that they keep compiling.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{MetadataCommand, TargetKind};

/// Coverage feedback for libFuzzer, in flags that a stable compiler accepts.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Ccodegen-units=1 --cfg fuzzing";
/// Longest input in bytes: a longer one exceeds every limit of the parsers.
const LONGEST_INPUT: u32 = 70_000;

/// Builds every target and runs each with `runs` inputs generated from `seed`.
pub(crate) fn run(root: &Path, runs: u64, seed: u32) -> Result<()> {
    let manifest = root.join("fuzz/Cargo.toml");
    let metadata =
        MetadataCommand::new().manifest_path(&manifest).no_deps().exec().context("fuzz/Cargo.toml")?;
    let targets: Vec<_> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind.contains(&TargetKind::Bin))
        .map(|target| target.name.clone())
        .collect();
    ensure!(!targets.is_empty(), "fuzz/Cargo.toml names no target");
    // `--target` keeps the coverage flags away from build scripts.
    let host = host()?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", &host, "--manifest-path"])
        .arg(&manifest)
        .env("RUSTFLAGS", COVERAGE)
        .current_dir(root)
        .status()?;
    ensure!(built.success(), "the fuzz targets do not build");
    for target in &targets {
        println!("== fuzz {target}: {runs} inputs");
        let corpus = root.join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus)?;
        let status = Command::new(root.join("fuzz/target").join(&host).join("release").join(target))
            .args([
                format!("-runs={runs}"),
                format!("-seed={seed}"),
                format!("-max_len={LONGEST_INPUT}"),
                "-rss_limit_mb=2048".to_owned(),
            ])
            .arg("-verbosity=0")
            .arg(&corpus)
            .current_dir(root.join("fuzz"))
            .status()
            .with_context(|| format!("cannot run fuzz target {target}"))?;
        ensure!(status.success(), "fuzz target {target} found a fault; its input lies in fuzz/");
    }
    println!("{} fuzz targets built and run", targets.len());
    Ok(())
}

fn host() -> Result<String> {
    let version = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(version.stdout)?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names no host")
}
