//! Files as they lie in a package: sorted, owned by root, of one time; so that the same files make the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

/// Permissions of a file that is read, and of one that is run.
pub(crate) const READ: u32 = 0o644;
pub(crate) const RUN: u32 = 0o755;

/// One entry of a [`Tree`].
#[derive(Clone)]
pub(crate) enum Entry {
    Folder,
    File(Vec<u8>),
}

/// Files by their path without a leading slash. A file brings the folders that it lies in.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, (u32, Entry)>,
}

impl Tree {
    /// A file with this content.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.entries.insert(path.to_owned(), (mode, Entry::File(content.into())));
    }

    /// A file with the content of another file.
    ///
    /// # Errors
    /// The other file cannot be read.
    pub(crate) fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, mode, content);
        Ok(())
    }

    /// The files of another tree, too.
    pub(crate) fn add(&mut self, other: Tree) {
        self.entries.extend(other.entries);
    }

    /// An empty folder.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.entries.insert(path.to_owned(), (mode, Entry::Folder));
    }

    /// Path, permissions and content of every entry, sorted by path.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, u32, &Entry)> {
        self.entries.iter().map(|(path, (mode, entry))| (path.as_str(), *mode, entry))
    }

    /// The same files below a folder.
    pub(crate) fn below(&self, folder: &str) -> Tree {
        let mut moved = Tree::default();
        for (path, mode, entry) in self.entries() {
            let path = format!("{folder}/{path}");
            moved.parents(&path);
            moved.entries.insert(path, (mode, entry.clone()));
        }
        moved
    }

    /// A tar archive.
    ///
    /// # Errors
    /// A path that tar cannot hold.
    pub(crate) fn tar(&self, epoch: u64) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, mode, entry) in self.entries() {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_mtime(epoch);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match entry {
                Entry::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Entry::File(content) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(u64::try_from(content.len())?);
                    archive.append_data(&mut header, path, content.as_slice())?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }

    /// A tar archive, compressed with gzip.
    ///
    /// # Errors
    /// As [`Tree::tar`].
    pub(crate) fn tar_gz(&self, epoch: u64) -> Result<Vec<u8>> {
        gzip(&self.tar(epoch)?)
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert((0o755, Entry::Folder));
        }
    }
}

/// Compresses without a time and a name in the header.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn two() -> [Tree; 2] {
        let mut one = Tree::default();
        one.file("bin/b", RUN, "b");
        one.file("a", READ, "a");
        let mut other = Tree::default();
        other.file("a", READ, "a");
        other.file("bin/b", RUN, "b");
        [one, other]
    }

    #[test]
    fn the_order_in_which_files_come_does_not_matter() {
        let [one, other] = two();
        assert_eq!(one.tar_gz(7).unwrap(), other.tar_gz(7).unwrap());
        assert_ne!(one.tar_gz(7).unwrap(), one.tar_gz(8).unwrap());
    }

    #[test]
    fn an_archive_has_the_folders_permissions_and_owners() {
        let [tree, _] = two();
        let bytes = tree.below("top").tar(7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 7));
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            seen.push((entry.path().unwrap().display().to_string(), header.mode().unwrap(), content));
        }
        let expected =
            [("top/", 0o755, ""), ("top/a", 0o644, "a"), ("top/bin/", 0o755, ""), ("top/bin/b", 0o755, "b")];
        assert_eq!(seen, expected.map(|(path, mode, content)| (path.to_owned(), mode, content.to_owned())));
    }
}
