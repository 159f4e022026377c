//! The folder of a local cloud: its control socket, its CA certificate, its database.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pgentra_identity::Env;
use pgentra_localdb::Janitor;

use crate::problem::{Blame, Outcome, Problem};

/// The folder of the Arc agent: every client insists on it (Microsoft: azure-arc/servers/managed-identity-authentication).
const ARC: &str = "/var/opt/azcmagent";

/// Where the local cloud called `name` lives: below `XDG_RUNTIME_DIR`, else below `TMPDIR` in a folder of this user's.
pub(crate) fn of(env: &Env, name: &str) -> PathBuf {
    let user = rustix::process::geteuid();
    let temporary = || PathBuf::from(env.get("TMPDIR").unwrap_or_else(|| "/tmp".to_owned()));
    let base = match env.get("XDG_RUNTIME_DIR") {
        // A server started by root runs as another user, who could not pass through root's private folder.
        Some(folder) if !user.is_root() => PathBuf::from(folder).join("pgentra"),
        _ => temporary().join(format!("pgentra-{}", user.as_raw())),
    };
    base.join(name)
}

/// Makes the folder, which must not be there yet, and watches it: it goes when this process goes. Its parent must be ours
/// alone: in `/tmp` anybody can make a folder of any name.
pub(crate) fn create(folder: &Path) -> Outcome<Janitor> {
    let parent = folder.parent().unwrap_or(folder);
    let user = rustix::process::geteuid();
    // Others may pass through where root starts a server as another user; the files inside are closed to them.
    let mode = if user.is_root() { 0o711 } else { 0o700 };
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(mode).recursive(true).create(parent).map_err(|error| cannot_make(parent, &error))?;
    let found = std::fs::symlink_metadata(parent).map_err(|error| cannot_make(parent, &error))?;
    if !found.is_dir() || found.uid() != user.as_raw() || found.permissions().mode() & 0o022 != 0 {
        return Err(Problem::new(
            Blame::Ours,
            format!("{} is not a folder of yours alone", parent.display()),
        )
        .hint("somebody else made it; set TMPDIR to a folder of your own"));
    }
    let janitor = Janitor::create(folder).map_err(|error| cannot_make(folder, &error))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
        .map_err(|error| cannot_make(folder, &error))?;
    Ok(janitor)
}

/// Makes the folder of the Arc agent, with that of its keys, and watches it. A real agent's is left alone.
pub(crate) fn create_arc() -> Outcome<Janitor> {
    let folder = Path::new(ARC);
    let janitor = Janitor::create(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Problem::new(
            Blame::Usage,
            format!("{ARC} is there already: this machine may be an Azure Arc server"),
        )
        .hint("in a mount namespace of its own, as root: unshare --mount sh -c 'mount -t tmpfs none /var/opt && pgentra local up --arc'"),
        _ => cannot_make(folder, &error).hint("--arc takes root, because clients read the agent's keys nowhere else"),
    })?;
    std::fs::create_dir(arc_keys(&janitor)).map_err(|error| cannot_make(folder, &error))?;
    Ok(janitor)
}

/// Where the Arc agent puts its keys.
pub(crate) fn arc_keys(agent: &Janitor) -> PathBuf {
    agent.folder().join("tokens")
}

/// Removes the parent where this was the last local cloud in it.
pub(crate) fn remove_parent(folder: &Path) {
    if let Some(parent) = folder.parent() {
        // Not empty means another local cloud lives there.
        let _ = std::fs::remove_dir(parent);
    }
}

fn cannot_make(folder: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Blame::Ours, format!("cannot make the folder {}: {error}", folder.display()))
        .hint("set TMPDIR to a folder that you can write to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let parent = base.path().join("pgentra");
        let one = create(&parent.join("one")).unwrap();
        assert!(create(&parent.join("one")).is_err(), "it is there already");
        one.finish().unwrap();
        assert!(!parent.join("one").exists());
        std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(create(&parent.join("two")).is_err());
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let parent = base.path().join("pgentra");
        std::os::unix::fs::symlink(base.path(), &parent).unwrap();
        assert!(create(&parent.join("one")).is_err());
    }
}
