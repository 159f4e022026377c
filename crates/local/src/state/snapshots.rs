//! Writes the state of a local cloud, while it runs and at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgentra_connect::quote;
use pgentra_emulator::LocalAzure;
use pgentra_gateway::Flavour;
use pgentra_local_state::{SavedFault, StateError, StateManifest};
use pgentra_localdb::{Backup, SavedData};
use secrecy::SecretString;

use super::file::StateFile;
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
        let failed = |error: std::io::Error| Failure::machine("cannot copy the files of PostgreSQL", error);
        let place =
            tempfile::Builder::new().prefix("copy-").tempdir_in(&self.fixed.folder).map_err(failed)?;
        let data = place.path().join("data");
        self.fixed.backup.copy(&data).await.map_err(failed)?;
        // After the database: a principal of a role in it is in the tenant.
        let manifest = self.manifest(self.faults())?;
        let written = write(target, manifest, data).await;
        let _ = tokio::task::spawn_blocking(move || drop(place)).await;
        written
    }

    /// Writes the state of a cloud whose database has ended and whose data is at rest.
    pub(crate) async fn save_ended(
        &self,
        file: StateFile,
        faults: Vec<SavedFault>,
        data: PathBuf,
    ) -> Result<u64, Failure> {
        write(file, self.manifest(faults)?, data).await
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

async fn write(file: StateFile, manifest: StateManifest, data: PathBuf) -> Result<u64, Failure> {
    let path = file.path().to_owned();
    let cannot = |error: StateError| {
        Failure::machine(&format!("cannot write the state into {}", path.display()), error)
    };
    tokio::task::spawn_blocking(move || {
        file.replace(|file| pgentra_local_state::write(file, &manifest, &data))
    })
    .await
    .unwrap_or_else(|panicked| Err(std::io::Error::other(panicked).into()))
    .map_err(cannot)
}
