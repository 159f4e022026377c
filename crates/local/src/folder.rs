//! The folder of a local cloud: its control socket, its CA certificate, its database.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pgentra_connect::quote;
use pgentra_localdb::Janitor;
use pgentra_system::Env;

use crate::error::{Failure, FailureKind};

/// Why the folder of the Arc agent needs root.
const AS_ROOT: &str = "--arc takes root, because clients read the agent's keys nowhere else";

/// The folder of the Arc agent, which is fixed in every client (Microsoft:
/// azure-arc/servers/managed-identity-authentication).
const ARC: &str = "/var/opt/azcmagent";

/// The folder of the local cloud called `name`: in `XDG_RUNTIME_DIR`, else in `TMPDIR`.
pub fn folder_of(env: &Env, name: &str) -> PathBuf {
    let user = rustix::process::geteuid();
    match env.get("XDG_RUNTIME_DIR") {
        // A server started by root runs as another user, who cannot enter root's private folder.
        Some(folder) if !user.is_root() => PathBuf::from(folder).join(format!("pgentra-{name}")),
        _ => {
            let temporary = env.get("TMPDIR").unwrap_or_else(|| "/tmp".to_owned());
            PathBuf::from(temporary).join(format!("pgentra-{}-{name}", user.as_raw()))
        }
    }
}

/// The names of this user's local clouds that have a folder, sorted. Whether one runs, its control
/// socket says.
pub(crate) fn cloud_names(env: &Env) -> Vec<String> {
    // An empty name gives the beginning of every folder's name.
    let nameless = folder_of(env, "");
    let (Some(parent), Some(prefix)) = (nameless.parent(), nameless.file_name().and_then(OsStr::to_str))
    else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_str()?.strip_prefix(prefix)?.to_owned();
        // In `/tmp` another user can make a folder of any name.
        let is_ours = entry.file_type().is_ok_and(|kind| kind.is_dir()) && check_ours(&entry.path()).is_ok();
        (!name.is_empty() && is_ours).then_some(name)
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}

/// The variable with the parent of these folders.
pub(crate) fn variable(env: &Env) -> &'static str {
    match env.get("XDG_RUNTIME_DIR") {
        Some(_) if !rustix::process::geteuid().is_root() => "XDG_RUNTIME_DIR",
        _ => "TMPDIR",
    }
}

/// Creates the folder, which must not exist yet, and watches it: it is removed when this process
/// ends.
pub(crate) fn create(env: &Env, folder: &Path) -> Result<Janitor, Failure> {
    let cannot_make = |error: &std::io::Error| {
        let hint = format!("set {} to a folder that you can write to", variable(env));
        cannot_make(folder, error).with_hint(hint)
    };
    let janitor = Janitor::create(folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists if check_ours(folder).is_ok() => Failure::new(
            FailureKind::Machine,
            format!("{} is left of a local cloud that ended with the machine", folder.display()),
        )
        .with_hint(format!("remove it: rm -r {}", quote::shell_word(&folder.to_string_lossy()))),
        ErrorKind::AlreadyExists => not_ours(folder),
        _ => cannot_make(&error),
    })?;
    // If root starts a server as another user, that user must enter the folder; the files inside
    // stay private.
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
        .map_err(|error| cannot_make(&error))?;
    Ok(janitor)
}

/// Refuses a folder of another user: in `/tmp` any user can create a folder of any name, and the
/// status in it would become the environment of a shell. A missing folder is accepted: no cloud
/// runs there.
pub(crate) fn check_ours(folder: &Path) -> Result<(), Failure> {
    match std::fs::symlink_metadata(folder) {
        Ok(found) => {
            let is_ours = found.is_dir()
                && found.uid() == rustix::process::geteuid().as_raw()
                && found.permissions().mode() & 0o022 == 0;
            if is_ours { Ok(()) } else { Err(not_ours(folder)) }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::machine("cannot look at the local cloud's folder", error)),
    }
}

fn not_ours(folder: &Path) -> Failure {
    Failure::new(FailureKind::Machine, format!("{} is not a folder of yours alone", folder.display()))
        .with_hint("another user made it, or others may write to it: give another --name")
}

/// Creates the folder of the Arc agent, with that of its keys, and watches it. The folder of a real
/// agent is not changed.
pub(crate) fn create_arc() -> Result<Janitor, Failure> {
    let folder = Path::new(ARC);
    let janitor = Janitor::create(folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(
            FailureKind::Usage,
            format!("{ARC} is there already: this machine may be an Azure Arc server"),
        )
        .with_hint("run the same command as root in a mount namespace of its own, after: unshare --mount, mount -t tmpfs none /var/opt"),
        _ => cannot_make(folder, &error).with_hint(AS_ROOT),
    })?;
    std::fs::create_dir(arc_keys(&janitor))
        .map_err(|error| cannot_make(folder, &error).with_hint(AS_ROOT))?;
    Ok(janitor)
}

/// The folder for the keys of the Arc agent.
pub(crate) fn arc_keys(agent: &Janitor) -> PathBuf {
    agent.folder().join("tokens")
}

fn cannot_make(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Machine, format!("cannot make the folder {}: {error}", folder.display()))
}

/// Writes a file of the cloud's folder, for this user alone, in one step for its readers.
pub(crate) fn write(file: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    put(file, content.as_ref(), 0o600)
        .map_err(|error| Failure::machine("cannot write into the local cloud's folder", error))
}

/// Writes a file at once that every user can read.
///
/// # Errors
/// If others can write to its folder: they could put a link in its place, or another authority.
pub(crate) fn write_shared(file: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::machine(&format!("cannot write {}", file.display()), error);
    let folder = parent(file);
    let found = std::fs::metadata(folder).map_err(failed)?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw() || found.uid() == 0;
    if !is_ours || found.permissions().mode() & 0o022 != 0 {
        let message = format!("other users can write to {}", folder.display());
        let word = quote::shell_word(&folder.to_string_lossy());
        return Err(Failure::new(FailureKind::Usage, message)
            .with_hint(format!("give a folder of yours that others cannot write to: chmod go-w {word}")));
    }
    put(file, content, 0o644).map_err(failed)
}

/// The new file has a name of its own, so that no link in the folder is followed, and goes with an error.
fn put(file: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    let mut fresh = tempfile::Builder::new().prefix(".pgentra-").suffix(".new").tempfile_in(parent(file))?;
    // The user's umask has no say.
    fresh.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    fresh.write_all(content)?;
    fresh.persist(file)?;
    Ok(())
}

/// The folder of a file.
fn parent(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_goes() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("pgentra-one");
        let env = Env::from_map::<String, String>([]);
        let one = create(&env, &folder).unwrap();
        check_ours(&folder).unwrap();
        assert!(create(&env, &folder).is_err(), "it is there already");
        one.finish().unwrap();
        assert!(!folder.exists());
        check_ours(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check_ours(base.path()).is_err());
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("pgentra-one");
        std::os::unix::fs::symlink(base.path(), &folder).unwrap();
        assert!(check_ours(&folder).is_err());
        assert!(create(&Env::from_map::<String, String>([]), &folder).is_err());
    }

    #[test]
    fn a_shared_file_follows_no_link_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let (folder, victim) = (base.path().join("azure"), base.path().join("victim"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&victim, "before").unwrap();
        for name in ["token", "token.new"] {
            std::os::unix::fs::symlink(&victim, folder.join(name)).unwrap();
        }
        write_shared(&folder.join("token"), b"text").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "before");
        assert_eq!(std::fs::read_to_string(folder.join("token")).unwrap(), "text");
        assert_eq!(std::fs::metadata(folder.join("token")).unwrap().permissions().mode() & 0o777, 0o644);
        std::fs::create_dir(folder.join("taken")).unwrap();
        assert!(write_shared(&folder.join("taken"), b"text").is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "nothing is left of it");
        for mode in [0o775, 0o757, 0o777] {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = write_shared(&folder.join("token"), b"other").unwrap_err();
            assert!(refused.to_string().contains("other users can write to"), "{refused}");
            assert!(refused.hint().unwrap().contains("chmod go-w"), "{refused:?}");
        }
        assert_eq!(std::fs::read_to_string(folder.join("token")).unwrap(), "text");
    }

    #[test]
    fn the_hint_names_the_variable_that_counts() {
        let base = tempfile::tempdir().unwrap();
        let nowhere = base.path().join("file");
        std::fs::write(&nowhere, "").unwrap();
        let root = rustix::process::geteuid().is_root();
        for (name, counts) in
            [("TMPDIR", "TMPDIR"), ("XDG_RUNTIME_DIR", if root { "TMPDIR" } else { "XDG_RUNTIME_DIR" })]
        {
            let env = Env::from_map([(name, nowhere.to_str().unwrap())]);
            let problem = create(&env, &nowhere.join("one")).unwrap_err();
            assert!(problem.hint().unwrap().starts_with(&format!("set {counts} to")), "{problem:?}");
        }
    }
}
