use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::secret::SecretBuffer;

/// Symbolic links are followed this often in the in-memory form, as on Linux.
const MAX_LINKS: usize = 40;

/// Where files are read from: the file system, or memory. Cheap to clone; clones share the in-memory files.
///
/// Reading blocks the thread. The files concerned are small and local: tokens, keys, certificates, configuration.
#[derive(Clone)]
pub struct Files(Backend);

#[derive(Clone)]
enum Backend {
    System,
    Memory(Arc<Mutex<BTreeMap<PathBuf, FileEntry>>>),
}

#[derive(Clone)]
enum FileEntry {
    File(Vec<u8>),
    Link(PathBuf),
}

impl Files {
    /// The file system of this machine.
    pub fn real() -> Self {
        Self(Backend::System)
    }

    /// No file but those added with [`Files::put`] and [`Files::link`].
    pub fn in_memory() -> Self {
        Self(Backend::Memory(Arc::default()))
    }

    /// Adds or replaces an in-memory file. Does nothing to the real file system.
    pub fn put(&self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        if let Backend::Memory(entries) = &self.0 {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.insert(path.into(), FileEntry::File(content.into()));
        }
    }

    /// Adds or replaces an in-memory symbolic link. Does nothing to the real file system.
    pub fn link(&self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        if let Backend::Memory(entries) = &self.0 {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.insert(path.into(), FileEntry::Link(target.into()));
        }
    }

    /// The content of a file of at most `limit` bytes.
    ///
    /// # Errors
    /// Those of the file system; `FileTooLarge` for a longer file; `InvalidInput` for what is not a regular file.
    pub fn read(&self, path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u8>> {
        let path = path.as_ref();
        match &self.0 {
            Backend::System => read_system(path, limit, |_| Ok(())),
            Backend::Memory(_) => match self.follow(path)?.1 {
                content if content.len() > limit => Err(too_large(limit)),
                content => Ok(content),
            },
        }
    }

    /// As [`Files::read`], of a file that holds a secret: others may not read it, nor its group change it. Files in memory
    /// are private.
    ///
    /// # Errors
    /// Those of [`Files::read`]; `PermissionDenied` for a file with another mode.
    pub fn read_private(&self, path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u8>> {
        match &self.0 {
            Backend::System => read_system(path.as_ref(), limit, is_private),
            Backend::Memory(_) => self.read(path, limit),
        }
    }

    /// The content of a text file of at most `limit` bytes.
    ///
    /// # Errors
    /// Those of [`Files::read`]; `InvalidData` for what is not UTF-8.
    pub fn read_text(&self, path: impl AsRef<Path>, limit: usize) -> io::Result<String> {
        String::from_utf8(self.read(path, limit)?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
    }

    /// Does a regular file exist at this path, after following links?
    pub fn is_file(&self, path: impl AsRef<Path>) -> bool {
        match &self.0 {
            Backend::System => path.as_ref().is_file(),
            Backend::Memory(_) => self.follow(path.as_ref()).is_ok(),
        }
    }

    /// The path with every link resolved.
    ///
    /// # Errors
    /// Those of the file system: the file must exist.
    pub fn canonical(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        match &self.0 {
            Backend::System => path.as_ref().canonicalize(),
            Backend::Memory(_) => self.follow(path.as_ref()).map(|(path, _)| path),
        }
    }

    fn follow(&self, path: &Path) -> io::Result<(PathBuf, Vec<u8>)> {
        let Backend::Memory(entries) = &self.0 else { return Err(io::ErrorKind::Unsupported.into()) };
        let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match entries.get(&path) {
                Some(FileEntry::File(content)) => return Ok((path, content.clone())),
                Some(FileEntry::Link(target)) => path = target.clone(),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Err(io::Error::other("too many symbolic links"))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Backend::System => "Files(system)",
            Backend::Memory(_) => "Files(memory)",
        })
    }
}

fn read_system(
    path: &Path,
    limit: usize,
    check: impl Fn(&Metadata) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    // Checked before it is opened: opening a named pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    // Checked again on the open file: the path may have been replaced after the first check.
    check(&file.metadata()?)?;
    let mut content = SecretBuffer::new();
    // Reads one byte more than the limit: then a longer file is detected, also if it grows meanwhile.
    let read = content.read_blocking(&mut file.take(limit as u64 + 1))?;
    if read > limit { Err(too_large(limit)) } else { Ok(std::mem::take(&mut *content.into_bytes())) }
}

/// Opens a file of this machine to append to it. A file that this makes can be read by the process's user alone; on
/// Windows its folder says who may read it.
///
/// # Errors
/// Those of the file system.
pub fn append_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// As PostgreSQL wants the mode of a key, except that it asks who owns a file that its group can read.
#[cfg(unix)]
fn is_private(metadata: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    /// The group must not have write or execute permission, and others no permission at all.
    const CLOSED: u32 = 0o037;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & CLOSED == 0 {
        return Ok(());
    }
    let message = format!("its mode {mode:04o} lets others at it: it must be 0640 or less");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Windows has no modes: as in libpq, the file's folder is taken to be the user's own.
#[cfg(not(unix))]
fn is_private(_: &Metadata) -> io::Result<()> {
    Ok(())
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("the file is longer than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &Files, dir: &Path) {
        assert_eq!(files.read(dir.join("a"), 3).unwrap(), b"abc");
        assert_eq!(files.read(dir.join("a"), 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(files.read(dir.join("b"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(files.read_text(dir.join("link"), 3).unwrap(), "abc");
        assert_eq!(files.canonical(dir.join("link")).unwrap(), dir.join("a"));
        assert!(files.is_file(dir.join("link")) && !files.is_file(dir.join("b")));
        assert!(files.read(dir.join("loop"), 3).is_err());
    }

    #[test]
    fn both_forms_behave_alike() {
        let memory = Files::in_memory();
        memory.put("/d/a", "abc");
        memory.link("/d/link", "/d/a");
        memory.link("/d/loop", "/d/loop");
        check(&memory, Path::new("/d"));

        #[cfg(unix)]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().canonicalize().unwrap();
            std::fs::write(path.join("a"), "abc").unwrap();
            std::os::unix::fs::symlink(path.join("a"), path.join("link")).unwrap();
            std::os::unix::fs::symlink(path.join("loop"), path.join("loop")).unwrap();
            check(&Files::real(), &path);
            assert!(Files::real().read(&path, 10).is_err(), "a folder is not a file");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "abc").unwrap();
        for (mode, may) in
            [(0o600, true), (0o640, true), (0o440, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Files::real().read_private(&path, 3);
            assert_eq!(read.is_ok(), may, "{mode:o}");
            assert!(read.is_ok_and(|content| content == b"abc") == may);
        }
        assert!(Files::real().read_private(&path, 2).is_err());
    }
}
