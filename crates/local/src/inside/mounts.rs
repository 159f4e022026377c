//! The files of the namespace, laid over those of the machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::plan::NamespacePlan;
use super::refused::{failed, failed_at};
use super::trust::TrustFiles;
use crate::error::Failure;

/// The names of the machine (hosts(5)).
const HOSTS: &str = "/etc/hosts";
/// Which name services are asked (nsswitch.conf(5)).
const SERVICES: &str = "/etc/nsswitch.conf";
/// The socket of the cache of names, which knows nothing of the namespace (nscd(8)).
const NAME_CACHE: &str = "/run/nscd";

const NOTHING: Option<&str> = None;

/// From now on mounts of this namespace are not seen outside.
pub(super) fn make_private() -> Result<(), Errno> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
}

/// Lays the files of the plan over those of the machine.
pub(super) fn lay(plan: &NamespacePlan) -> Result<(), Failure> {
    // In memory: nothing of it is left when the program has ended, however it ended.
    memory(&plan.folder)?;
    let trust = TrustFiles::with(&plan.certificates)?;
    write(&plan.bundle(), trust.bundle.as_bytes())?;
    write(&plan.store(), &trust.store)?;
    let own = |number: usize| plan.folder.join(format!("bundle-{number}.pem"));
    for (number, (path, text)) in trust.laid_over.iter().enumerate() {
        write(&own(number), text.as_bytes())?;
        bind(&own(number), path)?;
    }
    let hosts = read(Path::new(HOSTS))?;
    lay_over(plan, "hosts", Path::new(HOSTS), &with_names(&hosts, &plan.hosts))?;
    if let Ok(services) = fs::read_to_string(SERVICES) {
        lay_over(plan, "nsswitch.conf", Path::new(SERVICES), &files_first(&services))?;
    }
    if Path::new(NAME_CACHE).is_dir() {
        memory(Path::new(NAME_CACHE))?;
    }
    Ok(())
}

fn lay_over(plan: &NamespacePlan, name: &str, place: &Path, text: &str) -> Result<(), Failure> {
    let file = plan.folder.join(name);
    write(&file, text.as_bytes())?;
    bind(&file, place)
}

/// The hosts file with further names. They come first: the first line with a name counts.
fn with_names(hosts: &str, names: &[(String, std::net::Ipv4Addr)]) -> String {
    let lines: String = names.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect();
    format!("{lines}{hosts}")
}

/// The name services with the hosts file before DNS, and without services that answer from outside
/// the namespace.
fn files_first(services: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("hosts:") {
        Some(_) => "hosts: files dns\n".to_owned(),
        None => format!("{line}\n"),
    };
    services.lines().map(line).collect()
}

/// A file system in memory at this folder.
fn memory(folder: &Path) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("pgentra"), folder, Some("tmpfs"), flags, Some("mode=0755"))
        .map_err(|error| failed_at("mount a file system in memory at", folder, error.into()))
}

fn bind(file: &Path, place: &Path) -> Result<(), Failure> {
    mount(Some(file), place, NOTHING, MsFlags::MS_BIND, NOTHING)
        .map_err(|error| failed_at("lay a file over", place, error.into()))
}

/// Writes a file that every user of the namespace can read, as the files that it is laid over.
fn write(file: &Path, text: &[u8]) -> Result<(), Failure> {
    fs::write(file, text)
        .and_then(|()| fs::set_permissions(file, Permissions::from_mode(0o644)))
        .map_err(|error| failed_at("write", file, error))
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| failed(&format!("cannot read {}", file.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_plan_come_first() {
        let names = [("login.microsoftonline.com".to_owned(), [127, 0, 0, 10].into())];
        let text = with_names("127.0.0.1 localhost\n", &names);
        assert_eq!(text, "127.0.0.10\tlogin.microsoftonline.com\n127.0.0.1 localhost\n");
    }

    #[test]
    fn the_hosts_file_is_asked_before_anything_outside() {
        let services = "passwd: files systemd\nhosts:  mymachines resolve [!UNAVAIL=return] files dns\n# end";
        assert_eq!(files_first(services), "passwd: files systemd\nhosts: files dns\n# end\n");
    }
}
