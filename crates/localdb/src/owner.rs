use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the server's programs and the shell may find; our own environment may hold secrets and `PG*` variables.
pub(crate) const SEARCH_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// The user without rights of its own that every system has.
const UNPRIVILEGED: &str = "nobody";

/// The user that the server runs as, where that is another one than ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// None when we are unprivileged already. As root: `postgres` if there is such a user, else [`UNPRIVILEGED`].
    pub(crate) fn choose() -> Option<Owner> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", UNPRIVILEGED].iter().find_map(|name| Owner::read(&users, name))
    }

    /// Whether this user can work in `folder` and run `program`. It is tried out, so that access lists count too.
    pub(crate) fn can_reach(&self, folder: &Path, program: &Path) -> io::Result<bool> {
        let status = Command::new("/bin/sh")
            .args(["-c", r#"cd -- "$1" && test -w . && test -x "$2""#, "reach"])
            .args([folder, program])
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .current_dir("/")
            .uid(self.uid)
            .gid(self.gid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    /// Hands `path` and all below it to this user.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.uid), Some(self.gid))?;
        if path.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.take(&entry?.path())?;
            }
        }
        Ok(())
    }

    fn read(users: &str, name: &str) -> Option<Owner> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let (uid, gid) = (fields.nth(1)?, fields.next()?);
            Some(Owner { name: name.to_owned(), uid: id(uid)?, gid: id(gid)? })
        })
    }
}

/// macOS writes the ids of [`UNPRIVILEGED`] as -2.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse().ok().map(i32::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read() {
        let users = "root:x:0:0:root:/root:/bin/bash\npostgresql:x:7:7::/:\n\
                     postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\nnobody:*:-2:-2::/:\nshort:x\n";
        let ids = |name| Owner::read(users, name).map(|owner| (owner.uid, owner.gid));
        assert_eq!(ids("postgres"), Some((101, 104)));
        assert_eq!(ids(UNPRIVILEGED), Some((u32::MAX - 1, u32::MAX - 1)));
        assert_eq!(ids("short"), None);
        assert_eq!(ids("absent"), None);
    }
}
