//! What becomes of a state that could not be written into its file: nothing of it is lost at the stop.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use pgentra_connect::quote;
use pgentra_local_state::SavedFault;

use super::file::StateFile;
use super::snapshots::Snapshots;
use crate::error::Failure;

/// Files of one local cloud that are kept in this way.
const MOST_FILES: usize = 100;

/// A cloud whose database has ended, and the places for what it leaves.
pub(crate) struct Rescue<'a> {
    pub(crate) snapshots: &'a Snapshots,
    pub(crate) faults: Vec<SavedFault>,
    /// The name of the cloud.
    pub(crate) name: &'a str,
    /// The folder for another file. `None`: there is none.
    pub(crate) folder: Option<&'a Path>,
    /// PostgreSQL's files.
    pub(crate) data: &'a Path,
    /// The folder of the cloud, which is removed.
    pub(crate) cloud: &'a Path,
}

impl Rescue<'_> {
    /// Writes the state into a new file `NAME.pgentra` of the folder, or keeps PostgreSQL's files. Returns the failure with
    /// the place in its hint.
    pub(crate) async fn another_file(self, failure: Failure) -> Failure {
        match self.saved().await {
            Ok(file) => {
                let word = quote::shell_word(&file.to_string_lossy());
                failure.with_hint(format!("the state is in {word}: pgentra local up --state {word}"))
            }
            Err(error) => {
                tracing::error!(error = error.words(), "the state could not be written into another file");
                self.files(failure)
            }
        }
    }

    /// Keeps PostgreSQL's files. Returns the failure with their place in its hint.
    pub(crate) fn files(self, failure: Failure) -> Failure {
        match keep(self.data, self.cloud) {
            Ok(kept) => failure.with_hint(format!(
                "PostgreSQL's files are kept in {}; remove that folder when you need it no more",
                quote::shell_word(&kept.to_string_lossy())
            )),
            Err(error) => {
                tracing::error!(data = %self.data.display(), %error, "PostgreSQL's files could not be kept");
                failure
                    .with_hint("the changes since the start are lost; free some space before the next start")
            }
        }
    }

    async fn saved(&self) -> Result<PathBuf, Failure> {
        let none =
            || Failure::machine("there is no folder for a state", io::Error::from(io::ErrorKind::NotFound));
        let folder = self.folder.ok_or_else(none)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
            Failure::machine(&format!("cannot make the folder {}", folder.display()), error)
        })?;
        for number in 1..=MOST_FILES {
            let name = match number {
                1 => format!("{}.pgentra", self.name),
                number => format!("{}-{number}.pgentra", self.name),
            };
            // Another local cloud may write one too.
            let Ok(file) = StateFile::take(&folder.join(name)) else { continue };
            let path = file.path().to_owned();
            if path.symlink_metadata().is_err() {
                self.snapshots.save_ended(file, self.faults.clone(), self.data.to_owned()).await?;
                return Ok(path);
            }
        }
        Err(none())
    }
}

/// Moves the files into a new folder beside that of the cloud, for this user alone.
fn keep(data: &Path, cloud: &Path) -> io::Result<PathBuf> {
    let parent = cloud.parent().unwrap_or(cloud);
    let place = tempfile::Builder::new()
        .prefix("kept-by-pgentra-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    fs::rename(data, place.path().join("data"))?;
    Ok(place.keep())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_when_the_folder_of_the_cloud_goes() {
        let base = tempfile::tempdir().unwrap();
        let cloud = base.path().join("cloud");
        fs::create_dir_all(cloud.join("postgres/data")).unwrap();
        fs::write(cloud.join("postgres/data/PG_VERSION"), "17").unwrap();
        let kept = keep(&cloud.join("postgres/data"), &cloud).unwrap();
        fs::remove_dir_all(&cloud).unwrap();
        assert_eq!(fs::read_to_string(kept.join("data/PG_VERSION")).unwrap(), "17");
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(keep(&cloud.join("none"), &cloud).is_err());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
