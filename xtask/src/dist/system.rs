//! What every package brings beside the binary: manual pages, completions, licences.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::archive::{READ, RUN, Tree};
use super::build::{Built, runs};
use super::release::Release;

/// Each shell, its completions in an archive, and the file in which it looks for them on a Linux system.
const COMPLETIONS: [(&str, &str, Option<&str>); 4] = [
    ("bash", "pgentra.bash", Some("usr/share/bash-completion/completions/pgentra")),
    ("zsh", "_pgentra", Some("usr/share/zsh/site-functions/_pgentra")),
    ("fish", "pgentra.fish", Some("usr/share/fish/vendor_completions.d/pgentra.fish")),
    ("powershell", "pgentra.ps1", None),
];

/// What the binary prints about itself. It is the same for every system.
pub(crate) struct Printed {
    /// Name and text of each manual page.
    manual: Vec<(String, Vec<u8>)>,
    /// In the order of [`COMPLETIONS`].
    completions: Vec<Vec<u8>>,
}

impl Printed {
    /// Asks a binary that runs on this machine. The manual pages are written to a folder on the way.
    ///
    /// # Errors
    /// The binary fails.
    pub(crate) fn by(built: &Built, folder: &Path) -> Result<Printed> {
        let print = |words: &[&str]| -> Result<Vec<u8>> {
            let said = runs(built).args(words).output().context("cannot run the binary")?;
            ensure!(said.status.success(), "pgentra {} failed", words.join(" "));
            Ok(said.stdout)
        };
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        print(&["man", "--dir", folder.to_str().context("the folder's name is not UTF-8")?])?;
        let mut manual = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).context("a page's name is not UTF-8")?;
            manual.push((name.to_owned(), fs::read(&path)?));
        }
        ensure!(manual.iter().any(|(name, _)| name == "pgentra.1"), "pgentra man --dir writes no pgentra.1");
        let completions =
            COMPLETIONS.iter().map(|(shell, _, _)| print(&["completions", shell])).collect::<Result<_>>()?;
        Ok(Printed { manual, completions })
    }
}

/// A system's files: the binary, its service, manual page, completions and documentation.
///
/// # Errors
/// A file of the workspace cannot be read.
pub(crate) fn files(release: &Release, built: &Built, printed: &Printed) -> Result<Tree> {
    let deploy = release.root.join("deploy");
    let mut tree = Tree::default();
    tree.copy("usr/bin/pgentra", RUN, &built.full)?;
    tree.copy("etc/pgentra/proxy.toml", READ, &deploy.join("systemd/proxy.toml"))?;
    tree.copy("etc/pgentra/gateway.toml", READ, &deploy.join("systemd/gateway.toml"))?;
    for unit in ["pgentra-proxy.service", "pgentra-proxy.socket", "pgentra-gateway.service"] {
        tree.copy(&format!("usr/lib/systemd/system/{unit}"), READ, &deploy.join("systemd").join(unit))?;
    }
    for (name, text) in &printed.manual {
        tree.file(&format!("usr/share/man/man1/{name}"), READ, text.clone());
    }
    for ((_, _, path), text) in COMPLETIONS.iter().zip(&printed.completions) {
        if let Some(path) = path {
            tree.file(path, READ, text.clone());
        }
    }
    for (name, path) in documents(&release.root)? {
        tree.copy(&format!("usr/share/doc/pgentra/{name}"), READ, &path)?;
    }
    Ok(tree)
}

/// A folder to unpack anywhere.
///
/// # Errors
/// A file of the workspace cannot be read.
pub(crate) fn folder(release: &Release, binary: &Path, printed: &Printed) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.copy("pgentra", RUN, binary)?;
    for (name, text) in &printed.manual {
        tree.file(&format!("man/{name}"), READ, text.clone());
    }
    for ((_, name, _), text) in COMPLETIONS.iter().zip(&printed.completions) {
        tree.file(&format!("completions/{name}"), READ, text.clone());
    }
    for name in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy(name, READ, &release.root.join(name))?;
    }
    Ok(tree)
}

/// README, licences and the pages of `docs/`.
fn documents(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let top = ["README.md", "LICENSE-APACHE", "LICENSE-MIT"].map(|name| (name.to_owned(), root.join(name)));
    let mut found = top.to_vec();
    for entry in fs::read_dir(root.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name =
                path.file_name().and_then(|name| name.to_str()).context("a page's name is not UTF-8")?;
            found.push((format!("docs/{name}"), path.clone()));
        }
    }
    Ok(found)
}
