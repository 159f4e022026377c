//! The image of a PostgreSQL server: Debian's packages of this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Folders;
use super::image::{archive, program, write};
use crate::dist::{RUN, Tree};

/// The image of the server.
const POSTGRES: &str = "docker.io/library/postgres";
/// Libraries that the server loads: the procedural language of the gateway's functions, and what `initdb` needs.
const LIBRARIES: [&str; 2] = ["plpgsql.so", "dict_snowball.so"];
/// Folders of the package that no server reads.
const UNREAD: [&str; 2] = ["man", "contrib"];
const READ: u32 = 0o644;

/// The image that every node imports: its name without a tag, and its archive.
pub(crate) fn archived(run: &Path) -> (&'static str, PathBuf) {
    (POSTGRES, archive(run, POSTGRES))
}

/// Makes the image: the server, `initdb`, psql and a shell. A container says what it runs.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn make(folders: &Folders) -> Result<()> {
    let version = version().context("no PostgreSQL is installed below /usr/lib/postgresql")?;
    let name = version.file_name().context("a version")?;
    let mut tree = Tree::default();
    let programs = ["postgres", "initdb", "psql"].map(|name| version.join("bin").join(name));
    let libraries = LIBRARIES.map(|name| version.join("lib").join(name));
    for file in programs.iter().chain(&libraries) {
        let path = file.to_str().context("a path that is not UTF-8")?;
        tree.add(program(path.trim_start_matches('/'), file)?);
    }
    copy_below(&mut tree, &Path::new("/usr/share/postgresql").join(name))?;
    // `initdb` runs the server through the shell, and asks for the name of its user.
    tree.copy("bin/sh", RUN, &folders.debian().join("bin/busybox"))?;
    tree.file("etc/passwd", READ, "postgres:x:65532:65532::/tmp:/bin/sh\n");
    tree.folder("tmp", 0o1777);
    write(folders, POSTGRES, "1", &tree, (&["/bin/sh"], "65532"))
}

/// The folder of the newest server.
fn version() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path());
    versions.filter(|version| version.join("bin/initdb").exists()).max()
}

fn copy_below(tree: &mut Tree, folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let is_unread = || UNREAD.iter().any(|name| path.ends_with(name));
        if !path.is_dir() {
            let place = path.to_str().context("a path that is not UTF-8")?;
            tree.copy(place.trim_start_matches('/'), READ, &path)?;
        } else if !is_unread() {
            copy_below(tree, &path)?;
        }
    }
    Ok(())
}
