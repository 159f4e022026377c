//! The files for programs in containers.

use std::fs;
use std::path::PathBuf;

/// Files that are removed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct ContainerFiles(Vec<PathBuf>);

impl ContainerFiles {
    pub(super) fn add(&mut self, file: PathBuf) {
        self.0.push(file);
    }
}

impl Drop for ContainerFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = fs::remove_file(file);
        }
    }
}
