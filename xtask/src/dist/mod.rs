//! `cargo xtask dist`: everything that can be installed, in `target/artifacts`. The same commit makes the same bytes.

mod archive;
mod build;
mod chart;
mod deb;
mod image;
mod npm;
mod oci;
mod release;
mod rpm;
mod sbom;
mod scripts;
mod shelf;
mod system;
mod wheel;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

pub(crate) use archive::{RUN, Tree};
use build::Built;
pub(crate) use image::userland;
pub(crate) use oci::{Artefact, Blob, layout};
use release::{Release, TARGETS};
use shelf::Shelf;
pub(crate) use shelf::sha256;
use system::Printed;

/// What `--only` chooses from.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Archives with the binary, and the shell installer for them.
    Archive,
    /// The Debian package.
    Deb,
    /// The RPM package.
    Rpm,
    /// The container images.
    Image,
    /// The Helm chart.
    Chart,
    /// The Python wheel.
    Wheel,
    /// The npm packages.
    Npm,
    /// The Homebrew formula. Needs the archives.
    Homebrew,
    /// The bill of materials.
    Sbom,
}

/// What one run makes.
#[derive(Args)]
pub(crate) struct Options {
    /// What to make; everything if it is not given.
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<Kind>,
    /// The processors to build for; all that this machine can build for if it is not given.
    #[arg(long, num_args = 1.., value_parser = ["x86_64", "aarch64"])]
    arch: Vec<String>,
    /// The profile of the binaries. `unoptimized` is for tests of the packages: it builds in a third of the time.
    #[arg(long, default_value = "dist", value_parser = ["dist", "release", "unoptimized"])]
    profile: String,
    /// Counts the packages of one version, for Debian and RPM.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
    /// The folder for the artefacts, which is emptied; target/artifacts if it is not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the artefacts will be downloaded, for the installer and the Homebrew formula; the releases of the manifest's
    /// `repository` if it is not given.
    #[arg(long)]
    base_url: Option<String>,
    /// Package twice and fail if the second run makes other bytes.
    #[arg(long)]
    twice: bool,
}

/// Builds, packages, and prints a table of what was made and a line for what was left out.
///
/// # Errors
/// A build or a packager fails; with `twice`, also if the second run makes other bytes.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let release = Release::new(root, options)?;
    let mut built = Vec::new();
    let mut missing = Vec::new();
    for target in TARGETS.iter().filter(|target| options.wants_arch(target.arch)) {
        if !options.wants_binaries() {
            continue;
        }
        match build::binaries(&release, target)? {
            Ok(binaries) => built.push(binaries),
            Err(why) => missing.push((format!("everything for Linux on {}", target.arch), why)),
        }
    }
    let mut shelf = package(&release, options, &built)?;
    if options.twice {
        let first = shelf.sums();
        shelf = package(&release, options, &built)?;
        ensure!(first == shelf.sums(), "two runs differ:\n{first}\n{}", shelf.sums());
        println!("packaged twice: the same hashes");
    }
    for (what, why) in missing {
        shelf.leave_out(what, why);
    }
    std::fs::write(release.out.join("SHA256SUMS"), shelf.sums())?;
    print!("{}", shelf.table());
    println!("in {}, with SHA256SUMS", release.out.display());
    Ok(())
}

impl Options {
    fn wants(&self, kind: Kind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    fn wants_arch(&self, arch: &str) -> bool {
        self.arch.is_empty() || self.arch.iter().any(|wanted| wanted == arch)
    }

    fn wants_binaries(&self) -> bool {
        Kind::value_variants()
            .iter()
            .any(|kind| !matches!(kind, Kind::Chart | Kind::Sbom) && self.wants(*kind))
    }
}

fn package(release: &Release, options: &Options, all: &[Built]) -> Result<Shelf> {
    let mut shelf = Shelf::new(release.out.clone())?;
    let pages = release.stage().join("man");
    // The same for every system, by any binary that runs on this machine.
    let printed = all.iter().find_map(|built| Printed::by(built, &pages).ok());
    let all = match &printed {
        Some(printed) => {
            for built in all {
                one(release, options, (built, printed), &mut shelf)?;
            }
            all
        }
        None if all.is_empty() => all,
        None => {
            let why = "no binary runs on this machine, and one must print the manual page: build for this machine too, or set \
                       CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64";
            shelf.leave_out("everything with a binary", why);
            &[]
        }
    };
    if options.wants(Kind::Npm) && !all.is_empty() {
        npm::main(release, all, &mut shelf)?;
    }
    if options.wants(Kind::Archive) {
        scripts::installer(release, &mut shelf)?;
    }
    if options.wants(Kind::Homebrew) && options.wants(Kind::Archive) && !all.is_empty() {
        scripts::formula(release, all, &mut shelf)?;
    }
    if options.wants(Kind::Chart) {
        chart::make(release, &mut shelf)?;
    }
    if options.wants(Kind::Sbom) {
        sbom::make(release, &mut shelf)?;
    }
    Ok(shelf)
}

/// Everything for one system.
fn one(release: &Release, options: &Options, from: (&Built, &Printed), shelf: &mut Shelf) -> Result<()> {
    let (built, printed) = from;
    if options.wants(Kind::Archive) {
        for (binary, part, what) in [
            (&built.full, "", "with the embedded PostgreSQL"),
            (&built.small, "-no-postgresql", "without PostgreSQL"),
        ] {
            let name = scripts::archive(release, built, part);
            let files = system::folder(release, binary, printed)?.below(name.trim_end_matches(".tar.gz"));
            shelf.put(&name, &files.tar_gz(release.epoch)?, format!("{}, {what}", built.how))?;
        }
    }
    if options.wants(Kind::Deb) || options.wants(Kind::Rpm) {
        let files = system::files(release, built, printed)?;
        if options.wants(Kind::Deb) {
            deb::make(release, built, &files, shelf)?;
        }
        if options.wants(Kind::Rpm) {
            rpm::make(release, built, &files, shelf)?;
        }
    }
    if options.wants(Kind::Image) {
        image::pgentra(release, built, shelf)?;
        image::local(release, built, shelf)?;
        image::operator(release, built, shelf)?;
    }
    if options.wants(Kind::Wheel) {
        wheel::make(release, built, shelf)?;
    }
    if options.wants(Kind::Npm) {
        npm::platform(release, built, shelf)?;
    }
    Ok(())
}
