//! The RPM package.

use std::fs;

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};

use super::archive::{Entry, Tree};
use super::build::Built;
use super::release::Release;
use super::shelf::Shelf;

/// Makes the package of one system, with the scripts of `deploy/rpm`.
///
/// # Errors
/// A script cannot be read, or a file cannot be packaged.
pub(crate) fn make(release: &Release, built: &Built, files: &Tree, shelf: &mut Shelf) -> Result<()> {
    let scripts = release.root.join("deploy/rpm");
    let script = |name: &str| {
        let path = scripts.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let epoch = u32::try_from(release.epoch).context("RPM ends in the year 2106")?;
    let summary = "PostgreSQL without passwords, on Azure identities";
    let mut package =
        PackageBuilder::new("pgentra", &release.version, "Apache-2.0 OR MIT", built.target.arch, summary);
    package
        .using_config(BuildConfig::v4().compression(CompressionType::Gzip).source_date(epoch))
        .release(release.revision.to_string())
        .build_host("localhost")
        .description(
            "Azure Database for PostgreSQL takes a Microsoft Entra access token in place of a password.\n\
             pgentra gets that token on any Azure host and signs in with it: from the shell, and through a\n\
             local proxy for any program that speaks PostgreSQL.",
        )
        .requires(Dependency::any("ca-certificates"))
        .suggests(Dependency::any("postgresql"))
        .post_install_script(script("post.sh")?)
        .pre_uninstall_script(script("preun.sh")?)
        .post_uninstall_script(script("postun.sh")?);
    for (path, mode, entry) in files.entries() {
        let options = |at: String| FileOptions::new(at).permissions(u16::try_from(mode).unwrap_or(0o644));
        let at = format!("/{path}");
        match entry {
            Entry::File(content) if path.starts_with("etc/") => {
                package.with_file_contents(content.clone(), options(at).config().noreplace())?;
            }
            Entry::File(content) if path.starts_with("usr/share/doc/") => {
                package.with_file_contents(content.clone(), options(at).doc())?;
            }
            Entry::File(content) => {
                package.with_file_contents(content.clone(), options(at))?;
            }
            // Its own folders alone: the others belong to the system.
            Entry::Folder if path.ends_with("/pgentra") => {
                package.with_dir_entry(FileOptions::dir(at))?;
            }
            Entry::Folder => {}
        }
    }
    let mut bytes = Vec::new();
    package.build()?.write(&mut bytes)?;
    let name = format!("pgentra-{}-{}.{}.rpm", release.version, release.revision, built.target.arch);
    shelf.put(&name, &bytes, "crate rpm")
}
