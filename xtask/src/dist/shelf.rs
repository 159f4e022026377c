//! What a run has made and what it has left out.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// The artefacts of a run, in the order in which they were made.
pub(crate) struct Shelf {
    folder: PathBuf,
    made: Vec<Made>,
    left_out: Vec<(String, String)>,
}

struct Made {
    name: String,
    size: usize,
    sha256: String,
    how: String,
}

impl Shelf {
    /// An empty folder for artefacts.
    ///
    /// # Errors
    /// The folder cannot be emptied.
    pub(crate) fn new(folder: PathBuf) -> Result<Shelf> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Shelf { folder, made: Vec::new(), left_out: Vec::new() })
    }

    /// Writes an artefact and says how it was made.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8], how: impl Into<String>) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        self.made.push(Made {
            name: name.to_owned(),
            size: bytes.len(),
            sha256: sha256(bytes),
            how: how.into(),
        });
        Ok(())
    }

    /// Says why something was not made.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left_out.push((what.into(), why.into()));
    }

    /// The hash of an artefact that was made. None: there is none of this name.
    pub(crate) fn sha256(&self, name: &str) -> Option<&str> {
        self.made.iter().find(|made| made.name == name).map(|made| made.sha256.as_str())
    }

    /// Each artefact's hash and name, as `sha256sum --check` reads them.
    pub(crate) fn sums(&self) -> String {
        let mut lines: Vec<_> =
            self.made.iter().map(|made| format!("{}  {}\n", made.sha256, made.name)).collect();
        lines.sort_by(|one, other| one[64..].cmp(&other[64..]));
        lines.concat()
    }

    /// A line for each artefact, and one for whatever is missing.
    pub(crate) fn table(&self) -> String {
        let width = self.made.iter().map(|made| made.name.len()).max().unwrap_or_default();
        let made = self.made.iter().map(|Made { name, size, sha256, how }| {
            format!("{name:width$}  {:>8} KiB  {}  {how}\n", size.div_ceil(1024), &sha256[..16])
        });
        let left_out = self.left_out.iter().map(|(what, why)| format!("left out: {what}: {why}\n"));
        made.chain(left_out).collect()
    }
}

/// A hash in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_sha256sum_sorted_by_name() {
        let folder = std::env::temp_dir().join(format!("pgentra-shelf-{}", std::process::id()));
        let mut shelf = Shelf::new(folder.clone()).unwrap();
        shelf.put("b", b"abc", "").unwrap();
        shelf.put("a", b"", "").unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            shelf.sums(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n"
        );
    }
}
