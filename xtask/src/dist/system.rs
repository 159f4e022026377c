//! What every package brings beside the binary: the manual page, completions, licences.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::archive::{READ, RUN, Tree};
use super::build::Built;
use super::release::Release;

/// The words for a shell's completions, and the file in which that shell looks for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/pgentra"),
    ("zsh", "usr/share/zsh/site-functions/_pgentra"),
    ("fish", "usr/share/fish/vendor_completions.d/pgentra.fish"),
];

/// What the binary prints about itself. It is the same for every system.
pub(crate) struct Printed {
    manual: Vec<u8>,
    completions: Vec<(&'static str, &'static str, Vec<u8>)>,
}

impl Printed {
    /// Asks a binary that runs on this machine.
    ///
    /// # Errors
    /// The binary fails.
    pub(crate) fn by(binary: &Path) -> Result<Printed> {
        let print = |words: &[&str]| -> Result<Vec<u8>> {
            let said = Command::new(binary).args(words).output().context("cannot run the binary")?;
            ensure!(said.status.success(), "pgentra {} failed", words.join(" "));
            Ok(said.stdout)
        };
        let completions = COMPLETIONS
            .iter()
            .map(|(shell, path)| Ok((*shell, *path, print(&["completions", shell])?)))
            .collect::<Result<_>>()?;
        Ok(Printed { manual: print(&["man"])?, completions })
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
    for unit in ["pgentra-proxy.service", "pgentra-proxy.socket"] {
        tree.copy(&format!("usr/lib/systemd/system/{unit}"), READ, &deploy.join("systemd").join(unit))?;
    }
    tree.file("usr/share/man/man1/pgentra.1", READ, printed.manual.clone());
    for (_, path, text) in &printed.completions {
        tree.file(path, READ, text.clone());
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
    tree.file("pgentra.1", READ, printed.manual.clone());
    for (shell, _, text) in &printed.completions {
        tree.file(&format!("completions/pgentra.{shell}"), READ, text.clone());
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
