//! Finds out whether files have changed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use pgentra_system::Files;

/// Longest file in bytes: no certificate, key, users file or mapping is longer.
const LENGTH: usize = 4 * 1024 * 1024;

/// How often files are checked for changes. A renewed certificate has days; a kubelet writes a
/// changed secret within a minute.
pub const LOOK: Duration = Duration::from_secs(10);

/// Some files, and a hash of their content.
#[derive(Clone, Debug)]
pub struct FileWatch {
    files: Files,
    paths: Vec<PathBuf>,
    seen: u64,
}

impl FileWatch {
    /// Longest file in bytes.
    pub const LENGTH: usize = LENGTH;

    /// The files with their current content.
    pub fn new(files: &Files, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watch = Self { files: files.clone(), paths: paths.into_iter().collect(), seen: 0 };
        watch.seen = watch.contents();
        watch
    }

    /// The paths of the files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether both have seen the same files with the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.paths, self.seen) == (&other.paths, other.seen)
    }

    /// Whether the content differs from that of the last call. A file that cannot be read counts as
    /// content of its own.
    pub fn has_changed(&mut self) -> bool {
        let now = self.contents();
        std::mem::replace(&mut self.seen, now) != now
    }

    fn contents(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in &self.paths {
            self.files.read(path, LENGTH).map_err(|error| error.kind()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once() {
        let files = Files::in_memory();
        let mut watch = FileWatch::new(&files, [PathBuf::from("/a")]);
        assert!(!watch.has_changed());
        files.put("/a", "one");
        assert!(watch.has_changed() && !watch.has_changed());
        files.put("/a", "two");
        assert!(watch.has_changed() && !watch.has_changed());
    }
}
