//! A state that a local cloud begins with.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgentra_emulator::{Ids, SavedAzure};
use pgentra_gateway::Flavour;
use pgentra_local_state::{SavedFault, StateError, StateManifest, manifest_of, unpack};
use pgentra_localdb::{SavedData, StartError};
use secrecy::{ExposeSecret, SecretString};

use super::file::{self, StateOption, unusable};
use crate::environment::CloudFiles;
use crate::error::{Failure, FailureKind};
use crate::folder::write;

/// A state that was read: everything but the files of PostgreSQL, which are read last.
pub(crate) struct SavedState {
    pub(crate) flavour: Flavour,
    pub(crate) azure: SavedAzure,
    pub(crate) faults: Vec<SavedFault>,
    pub(crate) data: SavedData,
    /// Certificate and key of the application, in PEM.
    client_certificate: Option<SecretString>,
    pub(crate) content: Arc<StateContent>,
}

/// The file that a state is read from.
#[derive(Debug)]
pub(crate) struct StateContent {
    path: PathBuf,
    option: StateOption,
    file: File,
}

impl SavedState {
    /// Reads the state in this file. `None`: there is no such file.
    ///
    /// # Errors
    /// If it is damaged or too large, of another version, or others can read it.
    pub(crate) fn open(path: &Path, option: StateOption) -> Result<Option<Self>, Failure> {
        let Some(file) = file::open(path, option)? else { return Ok(None) };
        let read = || -> Result<_, StateError> {
            let manifest = manifest_of(&file)?;
            Ok((manifest.flavour()?, manifest.data(), manifest))
        };
        let (flavour, data, manifest) = read().map_err(|error| unusable(path, option, error))?;
        let StateManifest { azure, faults, client_certificate, .. } = manifest;
        let client_certificate = Some(client_certificate).filter(|pem| !pem.expose_secret().is_empty());
        let content = Arc::new(StateContent { path: path.to_owned(), option, file });
        Ok(Some(Self { flavour, azure, faults, data, client_certificate, content }))
    }

    /// The same for a file that must exist.
    pub(crate) fn existing(path: &Path) -> Result<Self, Failure> {
        Self::open(path, StateOption::Snapshot)?.ok_or_else(|| {
            Failure::new(FailureKind::Usage, format!("there is no file {}", path.display()))
                .with_hint("make one of a local cloud that runs: pgentra local snapshot FILE")
        })
    }

    /// Writes the files of programs that are the same as before.
    pub(crate) fn write_files(&self, files: &CloudFiles) -> Result<(), Failure> {
        match &self.client_certificate {
            Some(pem) => write(&files.client_certificate, pem.expose_secret()),
            None => Ok(()),
        }
    }

    /// Refuses options that differ from the state.
    pub(crate) fn check(&self, flavour: Option<Flavour>, seed: Option<&str>) -> Result<(), Failure> {
        let path = self.content.path.display();
        let refuse = |message: String, option: &str| {
            Err(Failure::new(FailureKind::Usage, message)
                .with_hint(format!("leave out {option}, or {}", self.content.option.another_file())))
        };
        match flavour {
            Some(asked) if asked != self.flavour => {
                return refuse(format!("the state in {path} has the flavour {}", self.flavour), "--flavour");
            }
            _ => {}
        }
        match seed {
            Some(seed) if Ids::derived(seed) != *self.azure.ids() => {
                refuse(format!("the ids in {path} are not those of this seed"), "--seed")
            }
            _ => Ok(()),
        }
    }
}

impl StateContent {
    /// The failure to begin with it, after its files turned out to be damaged.
    pub(crate) fn damaged(&self, error: StartError) -> Failure {
        unusable(&self.path, self.option, StateError::Io(io::Error::other(error)))
    }

    /// Writes the files of PostgreSQL into a folder, which is empty. Blocks.
    pub(crate) fn unpack(&self, to: &Path) -> io::Result<()> {
        (&self.file).rewind()?;
        unpack(&self.file, to).map_err(|error| match error {
            StateError::Io(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        })
    }
}
