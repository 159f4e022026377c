//! Writes the state of a local cloud, while it runs and at its end.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgentra_connect::quote;
use pgentra_emulator::LocalAzure;
use pgentra_gateway::Flavour;
use pgentra_local_state::{SavedFault, StateError, StateManifest};
use pgentra_localdb::{Backup, SavedData};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::file::{StateFile, check_replaceable};
use crate::environment::CloudFiles;
use crate::error::{Failure, FailureKind};
use crate::faults::CloudFaults;

/// Saves the state of a running local cloud. Clones share it.
#[derive(Clone, Debug)]
pub struct Snapshots {
    azure: Arc<LocalAzure>,
    faults: CloudFaults,
    fixed: Arc<FixedParts>,
}

/// What of a cloud does not change while it runs.
#[derive(Debug)]
pub(crate) struct FixedParts {
    pub(crate) flavour: Flavour,
    pub(crate) data: SavedData,
    pub(crate) backup: Backup,
    pub(crate) folder: PathBuf,
}

impl Snapshots {
    pub(crate) fn new(azure: Arc<LocalAzure>, faults: CloudFaults, fixed: FixedParts) -> Self {
        Self { azure, faults, fixed: Arc::new(fixed) }
    }

    /// Writes the state into `file` and returns its size in bytes. It has every row that was acknowledged before the
    /// call. What changes meanwhile may be in it or not.
    ///
    /// Dropped before it is done, it leaves the file as it was, or complete.
    ///
    /// # Errors
    /// If the file is there already and `is_replaced` does not allow that, a local cloud uses it, or it cannot be
    /// written.
    pub(crate) async fn save(&self, file: &Path, is_replaced: bool) -> Result<u64, Failure> {
        let target = StateFile::take(file)?;
        if !is_replaced && target.path().symlink_metadata().is_ok() {
            let word = quote::shell_word(&file.to_string_lossy());
            return Err(Failure::new(FailureKind::Usage, format!("{} is there already", file.display()))
                .with_hint(format!(
                    "give another name, or replace it: pgentra local snapshot --replace {word}"
                )));
        }
        check_replaceable(target.path())?;
        let failed = |error: std::io::Error| Failure::machine("cannot copy the files of PostgreSQL", error);
        let place =
            tempfile::Builder::new().prefix("copy-").tempdir_in(&self.fixed.folder).map_err(failed)?;
        let data = place.path().join("data");
        self.fixed.backup.copy(&data).await.map_err(failed)?;
        // After the database: a principal of a role in it is in the tenant.
        let manifest = self.manifest(self.faults())?;
        replaced(target, move |file| {
            let written = pgentra_local_state::write(file, &manifest, &data);
            // Here, as its files are read until now, also if nobody waits any more.
            drop(place);
            written
        })
        .await
    }

    /// Writes the state of a cloud whose database has ended and whose data is at rest.
    pub(crate) async fn save_ended(
        &self,
        file: StateFile,
        faults: Vec<SavedFault>,
        data: PathBuf,
    ) -> Result<u64, Failure> {
        let manifest = self.manifest(faults)?;
        replaced(file, move |file| pgentra_local_state::write(file, &manifest, &data)).await
    }

    /// The faults that are on and have a name.
    pub(crate) fn faults(&self) -> Vec<SavedFault> {
        let named = |it: crate::faults::ActiveRow| {
            Some(SavedFault { fault: it.fault?, endpoint: it.endpoint?, left: it.left })
        };
        // A failover ends by itself.
        self.faults.list().active.into_iter().filter_map(named).filter(|it| it.fault != "failover").collect()
    }

    fn manifest(&self, faults: Vec<SavedFault>) -> Result<StateManifest, Failure> {
        let azure = self.azure.save().map_err(|error| Failure::machine("cannot save the tenant", error))?;
        let certificate = fs::read_to_string(CloudFiles::new(&self.fixed.folder).client_certificate);
        // A cloud without roles has none.
        let certificate = SecretString::from(certificate.unwrap_or_default());
        Ok(StateManifest::new(self.fixed.flavour, &self.fixed.data, azure, faults, certificate))
    }
}

/// Replaces the file on a thread for blocking work. Dropped before `write` has returned, it leaves the file as it was:
/// the data may have been removed meanwhile.
async fn replaced(
    file: StateFile,
    write: impl FnOnce(&mut File) -> Result<(), StateError> + Send + 'static,
) -> Result<u64, Failure> {
    let is_dropped = CancellationToken::new();
    let guard = is_dropped.clone().drop_guard();
    let work = tokio::task::spawn_blocking(move || {
        file.replace(|file| {
            write(file)?;
            match is_dropped.is_cancelled() {
                true => Err(io::Error::from(ErrorKind::Interrupted).into()),
                false => Ok(()),
            }
        })
    });
    let written = work.await;
    guard.disarm();
    written.unwrap_or_else(|panicked| Err(Failure::machine("cannot write the state", panicked)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc::channel;

    use eventually::{DEADLINE, eventually};

    use super::*;

    #[tokio::test]
    async fn a_stop_in_the_midst_of_a_snapshot_leaves_the_file() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("my.state");
        fs::write(&path, "before").unwrap();
        let (begins, begun) = tokio::sync::oneshot::channel();
        let (goes_on, waits) = channel::<()>();
        let writing = replaced(StateFile::take(&path).unwrap(), move |file| {
            begins.send(()).unwrap();
            let _ = waits.recv();
            Ok(file.write_all(b"a part")?)
        });
        tokio::select! {
            _ = writing => panic!("it waits"),
            begun = begun => begun.unwrap(),
        }
        drop(goes_on);
        eventually(DEADLINE, "the lock is given back", async || match StateFile::take(&path) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
