//! The challenges of the agent of an Azure Arc server: files that it writes, and whose content a request must repeat.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::mint::random;
use crate::options::AzureArcAgent;

/// How many challenges stay open; the oldest file is removed first. A client answers at once.
const OPEN_CHALLENGES: usize = 32;

/// The agent: its folder, and the challenges without a response so far. Dropping it removes their files.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) options: AzureArcAgent,
    open: Mutex<VecDeque<Challenge>>,
}

/// A file and what is in it. Dropping it removes the file.
#[derive(Debug)]
struct Challenge {
    file: PathBuf,
    key: SecretString,
}

impl Agent {
    pub(crate) fn new(options: AzureArcAgent) -> Self {
        Self { options, open: Mutex::default() }
    }

    /// Writes a new challenge file and returns its path.
    pub(crate) fn challenge(&self) -> io::Result<PathBuf> {
        let key = random(48).map_err(io::Error::other)?;
        let file = self.options.keys.join(format!("{}.key", Uuid::new_v4()));
        write_private(&file, &key)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_CHALLENGES {
            open.pop_front();
        }
        open.push_back(Challenge { file: file.clone(), key: key.into() });
        Ok(file)
    }

    /// Whether `offered` is in one of the files; it counts once.
    pub(crate) fn redeem(&self, offered: &str) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let position = open.iter().position(|challenge| challenge.key.expose_secret() == offered);
        position.and_then(|position| open.remove(position)).is_some()
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::debug!(%error, file = %self.file.display(), "challenge file was removed already");
        }
    }
}

#[cfg(unix)]
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    open.write_all(text.as_bytes())
}

#[cfg(not(unix))]
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).open(file)?.write_all(text.as_bytes())
}
