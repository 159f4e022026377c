//! Files in a folder that another user owns, where any name can become a link at any time.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat};

use crate::owner::Owner;

/// Writes a file for its user alone, at once: a reader sees the old text or the new one. No link is followed, neither in
/// place of the file nor in place of the folder.
pub(crate) fn replace(folder: &Path, name: &str, text: &str, owner: Option<&Owner>) -> io::Result<()> {
    let folder = opened_folder(folder)?;
    let new = format!("{name}.new");
    match unlinkat(&folder, &*new, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&folder, &*new, flags, Mode::RUSR | Mode::WUSR)?);
    if let Some(owner) = owner {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    file.write_all(text.as_bytes())?;
    Ok(renameat(&folder, &*new, &folder, name)?)
}

/// The text of a file. No link is followed.
pub(crate) fn read(folder: &Path, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(opened_folder(folder)?, name, flags, Mode::empty())?);
    check_plain(&file)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Refuses what is no file, or has a second name.
pub(crate) fn check_plain(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    match found.is_file() && found.nlink() == 1 {
        true => Ok(()),
        false => Err(io::Error::other("it is not a plain file")),
    }
}

fn opened_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn no_link_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let (folder, victim) = (base.path().join("folder"), base.path().join("victim"));
        fs::create_dir(&folder).unwrap();
        fs::write(&victim, "before").unwrap();
        symlink(&victim, folder.join("one")).unwrap();
        symlink(&victim, folder.join("one.new")).unwrap();
        assert!(read(&folder, "one").is_err());
        replace(&folder, "one", "text", None).unwrap();
        assert_eq!(read(&folder, "one").unwrap(), "text");
        let made = fs::symlink_metadata(folder.join("one")).unwrap();
        assert!(made.is_file() && made.permissions().mode() & 0o777 == 0o600);
        symlink(&folder, base.path().join("link")).unwrap();
        assert!(replace(&base.path().join("link"), "one", "other", None).is_err());
        assert!(read(&base.path().join("link"), "one").is_err());
        fs::hard_link(&victim, folder.join("two")).unwrap();
        assert!(read(&folder, "two").is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "before");
        assert_eq!(fs::read_to_string(folder.join("one")).unwrap(), "text");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }
}
