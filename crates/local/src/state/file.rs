//! The file of a state: who may read it, which local cloud has it, and how it is replaced.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pgentra_connect::quote;
use pgentra_local_state::{MOST_BYTES, StateError, manifest_of};
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Failure, FailureKind};

/// How often the lock is tried again when another local cloud ends just then.
const ATTEMPTS: usize = 100;

/// Beside a file `FILE` with a state: `.FILE.pgentra-lock` while a local cloud has it.
const LOCK_SUFFIX: &str = ".pgentra-lock";

/// A file that a state is written into, once. Meanwhile no other local cloud has it.
///
/// The lock is on a file of its own, which nothing is written into and which its holder removes. The state is written
/// into a file that is made then and becomes the file: so a reader sees the old content or the new one.
#[derive(Debug)]
pub(crate) struct StateFile {
    file: PathBuf,
    lock_file: PathBuf,
    lock: File,
}

impl StateFile {
    /// Takes the file, which need not exist yet; its folder must.
    ///
    /// # Errors
    /// If another local cloud has it, it is a folder or a device, or nothing can be written there.
    pub(crate) fn take(file: &Path) -> Result<Self, Failure> {
        let cannot = |error| cannot_write(file, error);
        let file = resolved(file).map_err(cannot)?;
        check_regular(&file)?;
        let mut name = OsString::from(".");
        name.push(file.file_name().unwrap_or_default());
        name.push(LOCK_SUFFIX);
        let lock_file = file.with_file_name(name);
        for _ in 0..ATTEMPTS {
            let lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(plain_flags())
                .open(&lock_file)
                .map_err(|error| cannot_write(&lock_file, error))?;
            check_private(&lock_file, &lock)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(&file)),
                Err(error) => return Err(cannot_write(&lock_file, error.into())),
            }
            // The process that had the lock may have removed the file meanwhile.
            if is_at(&lock, &lock_file) {
                return Ok(Self { file, lock_file, lock });
            }
        }
        Err(in_use(&file))
    }

    /// The path, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// Replaces the content, in one step and for this user alone. Returns the number of bytes.
    ///
    /// # Errors
    /// The file is as it was, but for the error that says that it is written and perhaps not on the disk.
    pub(crate) fn replace(
        self,
        write: impl FnOnce(&mut File) -> Result<(), StateError>,
    ) -> Result<u64, Failure> {
        let Some(folder) = self.file.parent() else { return Err(is_no_file(&self.file)) };
        let message = format!("cannot write the state into {}", self.file.display());
        let failed = |error: StateError| Failure::machine(&message, error);
        // If the lock was removed during the run, another local cloud may have the file by now.
        let _lock_again = match is_at(&self.lock, &self.lock_file) {
            true => None,
            false => Some(Self::take(&self.file).map_err(|error| Failure::machine(&message, error))?),
        };
        let written = || -> Result<_, StateError> {
            let folder_handle = File::open(folder)?;
            let mut fresh = tempfile::Builder::new()
                .prefix(".pgentra-")
                .suffix(".new")
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(folder)?;
            write(fresh.as_file_mut())?;
            fresh.as_file().sync_all()?;
            let length = fresh.as_file().metadata()?.len();
            if !is_at(fresh.as_file(), fresh.path()) {
                return Err(
                    io::Error::new(ErrorKind::NotFound, "another program removed what was written").into()
                );
            }
            Ok((folder_handle, fresh, length))
        };
        let (folder, fresh, length) = written().map_err(failed)?;
        check_regular(&self.file)?;
        fresh.persist(&self.file).map_err(|error| failed(error.error.into()))?;
        folder.sync_all().map_err(|error| {
            let message = format!(
                "the state is in {}, but the disk does not confirm that it is kept",
                self.file.display()
            );
            Failure::machine(&message, error)
        })?;
        Ok(length)
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // The lock of another holder stays.
        if is_at(&self.lock, &self.lock_file)
            && let Err(error) = fs::remove_file(&self.lock_file)
        {
            tracing::warn!(file = %self.lock_file.display(), %error, "a lock is left beside the state");
        }
    }
}

/// Whether this open file is the one of this name.
fn is_at(opened: &File, path: &Path) -> bool {
    match (opened.metadata(), fs::symlink_metadata(path)) {
        (Ok(mine), Ok(found)) => (found.dev(), found.ino()) == (mine.dev(), mine.ino()),
        _ => false,
    }
}

/// Refuses a device, a pipe or a folder of this name.
fn check_regular(file: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(file) {
        Ok(found) if !found.is_file() => Err(is_no_file(file)),
        _ => Ok(()),
    }
}

/// Refuses to replace a file that has something else than a state. An empty file may be replaced.
pub(super) fn check_replaceable(file: &Path) -> Result<(), Failure> {
    let opened = match OpenOptions::new().read(true).custom_flags(plain_flags()).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::machine(&format!("cannot read {}", file.display()), error)),
    };
    let found = opened
        .metadata()
        .map_err(|error| Failure::machine(&format!("cannot look at {}", file.display()), error))?;
    if !found.is_file() {
        return Err(is_no_file(file));
    }
    if found.len() == 0 {
        return Ok(());
    }
    match manifest_of(&opened) {
        Ok(_) | Err(StateError::OtherVersion { .. }) => Ok(()),
        Err(StateError::Io(error)) => {
            Err(Failure::machine(&format!("cannot read {}", file.display()), error))
        }
        Err(_) => {
            let message = format!("{} is not the state of a local cloud", file.display());
            Err(Failure::new(FailureKind::Usage, message)
                .with_hint("remove it yourself, or choose another name"))
        }
    }
}

/// The option of `pgentra local up` that names a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateOption {
    /// `--state`: the file may be missing, and is written at the stop.
    State,
    /// `--snapshot`: the file must exist.
    Snapshot,
}

impl StateOption {
    /// The next step where the file cannot be used.
    pub(super) fn another_file(self) -> &'static str {
        match self {
            Self::State => "give another file; one that does not exist yet begins with a new local cloud",
            Self::Snapshot => "give another file; without --snapshot a new local cloud begins",
        }
    }
}

/// Opens a state for reading. `None`: there is no such file.
///
/// # Errors
/// If others can read it, or it is not a file.
pub(super) fn open(file: &Path, option: StateOption) -> Result<Option<File>, Failure> {
    let cannot = |error| Failure::machine(&format!("cannot read {}", file.display()), error);
    let opened =
        match OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
    check_private(file, &opened)?;
    if opened.metadata().map_err(cannot)?.len() > MOST_BYTES {
        return Err(unusable(file, option, StateError::TooLarge));
    }
    Ok(Some(opened))
}

/// The failure of a state that cannot be used, with the next step.
pub(super) fn unusable(file: &Path, option: StateOption, error: StateError) -> Failure {
    let message = format!("cannot begin with the state in {}", file.display());
    let hint = match &error {
        StateError::OtherVersion { written_by, .. } => {
            format!("use pgentra {written_by}, or {}", option.another_file())
        }
        StateError::Io(error) if error.kind() == ErrorKind::StorageFull => "free some space".to_owned(),
        _ => option.another_file().to_owned(),
    };
    Failure::usage(&message, error).with_hint(hint)
}

/// Refuses what another user made or may read: it has private keys and secrets.
fn check_private(file: &Path, opened: &File) -> Result<(), Failure> {
    let found = opened
        .metadata()
        .map_err(|error| Failure::machine(&format!("cannot look at {}", file.display()), error))?;
    if !found.is_file() {
        return Err(is_no_file(file));
    }
    if found.uid() == rustix::process::geteuid().as_raw() && found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("{} may be read by other users, or is not yours", file.display());
    let word = quote::shell_word(&file.to_string_lossy());
    Err(Failure::new(FailureKind::Usage, message)
        .with_hint(format!("it holds private keys; if you trust it: chmod 600 {word}")))
}

fn is_no_file(file: &Path) -> Failure {
    Failure::new(FailureKind::Usage, format!("{} is not a file", file.display()))
        .with_hint("give the name of a file")
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
    Failure::new(FailureKind::Usage, message).with_hint(
        "pgentra local list shows those that run; give another file, or begin with a copy of its state: \
         pgentra local snapshot copy.pgentra, then pgentra local up --name other --snapshot copy.pgentra",
    )
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
        assert!(open(&path, StateOption::State).unwrap().is_none());
        assert_eq!(written(one, "a longer text"), 13);
        assert_eq!(names(base.path()), ["my.state"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        written(StateFile::take(&path).unwrap(), "short");
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        // The lock of a killed local cloud is taken over.
        let lock = base.path().join(".my.state.pgentra-lock");
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
        written(StateFile::take(&path).unwrap(), "new");
        assert_eq!(
            (names(base.path()), fs::read_to_string(&path).unwrap()),
            (vec!["my.state".into()], "new".into())
        );
    }

    #[test]
    fn a_file_of_a_similar_name_is_another_one() {
        let base = tempfile::tempdir().unwrap();
        let [path, similar] = ["my.state", "my.state.new"].map(|name| base.path().join(name));
        fs::write(&similar, "a user's own text").unwrap();
        let (one, other) = (StateFile::take(&path).unwrap(), StateFile::take(&similar).unwrap());
        written(one, "one");
        assert_eq!(fs::read_to_string(&similar).unwrap(), "a user's own text");
        written(other, "other");
        assert_eq!(names(base.path()), ["my.state", "my.state.new"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }

    #[test]
    fn a_lock_that_was_removed_costs_no_state() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("my.state");
        let lock = base.path().join(".my.state.pgentra-lock");
        let one = StateFile::take(&path).unwrap();
        fs::remove_file(&lock).unwrap();
        written(one, "one");
        assert_eq!(
            (names(base.path()), &*fs::read_to_string(&path).unwrap()),
            (vec!["my.state".into()], "one")
        );
        // Another local cloud has the file then.
        let one = StateFile::take(&path).unwrap();
        fs::remove_file(&lock).unwrap();
        let other = StateFile::take(&path).unwrap();
        let refused = one.replace(|_| Ok(())).unwrap_err();
        assert!(refused.words().contains("another local cloud uses the state"), "{refused}");
        assert!(lock.exists(), "the lock of the other one stays");
        written(other, "other");
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
    }

    #[test]
    fn what_is_no_state_is_not_replaced() {
        let base = tempfile::tempdir().unwrap();
        let pipe = base.path().join("pipe");
        make_pipe(&pipe);
        for path in [&*pipe, base.path(), Path::new("/dev/null")] {
            let refused = StateFile::take(path).unwrap_err();
            assert!(refused.to_string().contains("is not a file"), "{refused}");
        }
        assert_eq!(names(base.path()), ["pipe"]);
        let late = base.path().join("late");
        let taken = StateFile::take(&late).unwrap();
        make_pipe(&late);
        assert!(taken.replace(|_| Ok(())).unwrap_err().to_string().contains("is not a file"));
        assert_eq!(names(base.path()), ["late", "pipe"]);
        let text = base.path().join("text");
        check_replaceable(&text).unwrap();
        fs::write(&text, "").unwrap();
        check_replaceable(&text).unwrap();
        fs::write(&text, "a user's own text").unwrap();
        let refused = check_replaceable(&text).unwrap_err();
        assert!(refused.to_string().contains("is not the state of a local cloud"), "{refused}");
        assert!(refused.hint().unwrap().contains("remove it yourself"));
    }

    fn make_pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
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
        // A link in place of the lock leads nowhere.
        std::os::unix::fs::symlink(&path, base.path().join(".my.state.pgentra-lock")).unwrap();
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
            let refused = open(&path, StateOption::State).unwrap_err();
            assert!(refused.to_string().contains("may be read by other users"), "{mode:o}: {refused}");
            assert!(refused.hint().unwrap().contains("chmod 600"), "{refused:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(open(&path, StateOption::State).unwrap().is_some());
        assert!(open(base.path(), StateOption::State).unwrap_err().to_string().contains("is not a file"));
        assert!(StateFile::take(&base.path().join("none/my.state")).is_err());
        assert!(StateFile::take(Path::new("/")).is_err());
    }
}
