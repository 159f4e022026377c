//! The file of a state: who may read it, which local cloud has it, and how it is replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pgentra_connect::quote;
use pgentra_local_state::{MOST_BYTES, StateError};
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Failure, FailureKind};

/// How often the lock is tried again when another local cloud ends just then.
const ATTEMPTS: usize = 100;

/// A file that a state is written into, once. Meanwhile no other local cloud has it.
///
/// The lock is on the file `NAME.new` beside it, which becomes the file when it is written: so a reader sees the old
/// content or the new one, and nothing is left. Dropped before that, it removes `NAME.new`.
#[derive(Debug)]
pub(crate) struct StateFile {
    file: PathBuf,
    fresh: PathBuf,
    lock: File,
    is_done: bool,
}

impl StateFile {
    /// Takes the file, which need not exist yet; its folder must.
    ///
    /// # Errors
    /// If another local cloud has it, or nothing can be written there.
    pub(crate) fn take(file: &Path) -> Result<Self, Failure> {
        let cannot = |error| cannot_write(file, error);
        let file = resolved(file).map_err(cannot)?;
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = file.with_file_name(name);
        for _ in 0..ATTEMPTS {
            let lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(plain_flags())
                .open(&fresh)
                .map_err(|error| cannot_write(&fresh, error))?;
            check_private(&fresh, &lock)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(&file)),
                Err(error) => return Err(cannot_write(&fresh, error.into())),
            }
            // The process that had the lock may have renamed or removed the file meanwhile.
            let mine = lock.metadata().map_err(cannot)?;
            match fs::symlink_metadata(&fresh) {
                Ok(found) if (found.dev(), found.ino()) == (mine.dev(), mine.ino()) => {
                    return Ok(Self { file, fresh, lock, is_done: false });
                }
                _ => {}
            }
        }
        Err(in_use(&file))
    }

    /// The path, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// Replaces the content, in one step and for this user alone. Returns the number of bytes. After an error the file
    /// is as it was.
    pub(crate) fn replace(
        mut self,
        write: impl FnOnce(&mut File) -> Result<(), StateError>,
    ) -> Result<u64, StateError> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        write(&mut self.lock)?;
        self.lock.sync_all()?;
        fs::rename(&self.fresh, &self.file)?;
        self.is_done = true;
        if let Some(folder) = self.file.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(self.lock.metadata()?.len())
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if !self.is_done
            && let Err(error) = fs::remove_file(&self.fresh)
        {
            tracing::warn!(file = %self.fresh.display(), %error, "a file is left beside the state");
        }
    }
}

/// Opens a state for reading. `None`: there is no such file.
///
/// # Errors
/// If others can read it, or it is not a file.
pub(super) fn open(file: &Path) -> Result<Option<File>, Failure> {
    let cannot = |error| Failure::machine(&format!("cannot read {}", file.display()), error);
    let opened =
        match OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
    check_private(file, &opened)?;
    if opened.metadata().map_err(cannot)?.len() > MOST_BYTES {
        return Err(unusable(file, StateError::TooLarge));
    }
    Ok(Some(opened))
}

/// The failure of a state that cannot be used, with the next step.
pub(super) fn unusable(file: &Path, error: StateError) -> Failure {
    let message = format!("cannot begin with the state in {}", file.display());
    let hint = match &error {
        StateError::OtherVersion { written_by, .. } => {
            format!("use pgentra {written_by}, or give a file that does not exist yet")
        }
        StateError::Io(error) if error.kind() == ErrorKind::StorageFull => "free some space".to_owned(),
        _ => "give another file; one that does not exist yet begins with a new local cloud".to_owned(),
    };
    Failure::usage(&message, error).with_hint(hint)
}

/// Refuses what another user made or may read: it has private keys and secrets.
fn check_private(file: &Path, opened: &File) -> Result<(), Failure> {
    let found = opened
        .metadata()
        .map_err(|error| Failure::machine(&format!("cannot look at {}", file.display()), error))?;
    if !found.is_file() {
        let message = format!("{} is not a file", file.display());
        return Err(Failure::new(FailureKind::Usage, message).with_hint("give the name of a file"));
    }
    if found.uid() == rustix::process::geteuid().as_raw() && found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("{} may be read by other users, or is not yours", file.display());
    let word = quote::shell_word(&file.to_string_lossy());
    Err(Failure::new(FailureKind::Usage, message)
        .with_hint(format!("it holds private keys; if you trust it: chmod 600 {word}")))
}

fn plain_flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// The path without links, whether or not the file exists.
fn resolved(file: &Path) -> io::Result<PathBuf> {
    let absolute = match fs::canonicalize(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => std::path::absolute(file)?,
        found => found?,
    };
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder"));
    };
    Ok(fs::canonicalize(folder)?.join(name))
}

fn in_use(file: &Path) -> Failure {
    let message = format!("another local cloud uses the state in {}", file.display());
    let word = quote::shell_word(&file.to_string_lossy());
    Failure::new(FailureKind::Usage, message)
        .with_hint(format!(
            "pgentra local list shows those that run; to begin with the same state: pgentra local up --name other --snapshot {word}"
        ))
}

fn cannot_write(file: &Path, error: io::Error) -> Failure {
    Failure::usage(&format!("cannot write {}", file.display()), error)
        .with_hint("give a file in a folder that exists and that you can write to")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn written(file: StateFile, text: &str) -> u64 {
        file.replace(|file| Ok(file.write_all(text.as_bytes())?)).unwrap()
    }

    #[test]
    fn one_cloud_has_a_file_and_leaves_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("my.state");
        let one = StateFile::take(&path).unwrap();
        let refused = StateFile::take(&path).unwrap_err();
        assert!(refused.to_string().contains("another local cloud uses the state"), "{refused}");
        drop(one);
        assert!(names(base.path()).is_empty());
        let one = StateFile::take(&path).unwrap();
        assert!(open(&path).unwrap().is_none());
        assert_eq!(written(one, "a longer text"), 13);
        assert_eq!(names(base.path()), ["my.state"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        written(StateFile::take(&path).unwrap(), "short");
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        // What a killed local cloud left is used again.
        fs::write(base.path().join("my.state.new"), "half of it").unwrap();
        fs::set_permissions(base.path().join("my.state.new"), fs::Permissions::from_mode(0o600)).unwrap();
        written(StateFile::take(&path).unwrap(), "new");
        assert_eq!(
            (names(base.path()), fs::read_to_string(&path).unwrap()),
            (vec!["my.state".into()], "new".into())
        );
    }

    #[test]
    fn a_failure_keeps_the_file() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("my.state");
        written(StateFile::take(&path).unwrap(), "before");
        let failed = StateFile::take(&path).unwrap().replace(|file| {
            file.write_all(b"half")?;
            Err(io::Error::from(ErrorKind::StorageFull).into())
        });
        assert!(failed.is_err());
        assert_eq!(
            (names(base.path()), fs::read_to_string(&path).unwrap()),
            (vec!["my.state".into()], "before".into())
        );
    }

    #[test]
    fn a_link_leads_to_one_file() {
        let base = tempfile::tempdir().unwrap();
        let (path, link) = (base.path().join("my.state"), base.path().join("link"));
        written(StateFile::take(&path).unwrap(), "before");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let one = StateFile::take(&link).unwrap();
        assert!(StateFile::take(&path).is_err());
        written(one, "after");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        // A link in place of the fresh file leads nowhere.
        std::os::unix::fs::symlink(&path, base.path().join("my.state.new")).unwrap();
        assert!(StateFile::take(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
    }

    #[test]
    fn what_others_can_read_and_what_is_no_file_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("my.state");
        fs::write(&path, "x").unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = open(&path).unwrap_err();
            assert!(refused.to_string().contains("may be read by other users"), "{mode:o}: {refused}");
            assert!(refused.hint().unwrap().contains("chmod 600"), "{refused:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(open(&path).unwrap().is_some());
        assert!(open(base.path()).unwrap_err().to_string().contains("is not a file"));
        assert!(StateFile::take(&base.path().join("none/my.state")).is_err());
        assert!(StateFile::take(Path::new("/")).is_err());
    }
}
