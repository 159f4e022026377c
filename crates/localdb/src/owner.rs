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
        ["postgres", UNPRIVILEGED].iter().find_map(|name| Owner::named(name))
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

    /// Hands `path` and all below it to this user. A folder comes after what is in it: before that the user cannot put a
    /// link in the place of something.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        self.walk(path, &mut |path| lchown(path, Some(self.uid), Some(self.gid)))
    }

    fn walk(&self, path: &Path, visit: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        if path.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.walk(&entry?.path(), visit)?;
            }
        }
        visit(path)
    }

    /// Hands over the folder alone.
    pub(crate) fn take_folder(&self, folder: &Path) -> io::Result<()> {
        lchown(folder, Some(self.uid), Some(self.gid))
    }

    /// Takes the folder alone back, for the present user. Meanwhile no name in it changes.
    pub(crate) fn take_back(folder: &Path) -> io::Result<()> {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        lchown(folder, Some(user.as_raw()), Some(group.as_raw()))
    }

    /// The user of this name; none if the name service does not answer.
    fn named(name: &str) -> Option<Owner> {
        let user = nix::unistd::User::from_name(name).ok().flatten()?;
        Some(Owner { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_after_what_is_in_it() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b")).unwrap();
        fs::write(base.path().join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink("/etc", base.path().join("a/b/link")).unwrap();
        let mut seen = Vec::new();
        let owner = Owner { name: "root".into(), uid: 0, gid: 0 };
        let mut visit = |path: &Path| {
            seen.push(path.strip_prefix(base.path()).unwrap().to_string_lossy().into_owned());
            Ok(())
        };
        owner.walk(base.path(), &mut visit).unwrap();
        seen[..2].sort();
        assert_eq!(seen, ["a/b/c", "a/b/link", "a/b", "a", ""]);
    }

    #[test]
    fn users_are_known_by_name() {
        let root = Owner::named("root").unwrap();
        assert_eq!((root.name.as_str(), root.uid, root.gid), ("root", 0, 0));
        assert_eq!(Owner::named("no-such-user-on-any-machine"), None);
    }
}
