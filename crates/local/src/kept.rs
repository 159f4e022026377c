//! What stays the same for the same name: ids, ports, and the certificate authority.

use std::error::Error;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pgentra_emulator::certificates::Authority;
use pgentra_emulator::options::Ports;
use pgentra_system::Env;
use secrecy::ExposeSecret;

use crate::error::{Failure, FailureKind};
use crate::folder::write;

/// The ports of all clouds: below those that Linux and macOS give to outgoing connections (32768 and
/// up), above those of most services.
const FIRST_PORT: u16 = 20_000;
/// The ports of one cloud.
const PORTS: u16 = 8;
/// The first port of the pages of all clouds, which have one each. It is apart from the others, whose
/// numbers stay as they were before there was a page.
const FIRST_PAGE_PORT: u16 = 18_500;
/// The first port of the PgBouncers of all clouds, which have one each.
const FIRST_PGBOUNCER_PORT: u16 = 17_000;
/// How many clouds have ports of their own.
const BLOCKS: u16 = 1500;
/// Longest file in bytes; an authority takes about 1,000.
const LONGEST: u64 = 1 << 16;

/// The preferred ports of a cloud.
#[derive(Debug, Default)]
pub(crate) struct KeptPorts {
    pub(crate) postgres: u16,
    pub(crate) page: u16,
    pub(crate) pgbouncer: u16,
    pub(crate) azure: Ports,
}

/// The preferred ports of the cloud in this folder. They depend on the folder, so that clouds of two
/// users of one machine differ.
pub(crate) fn ports(folder: &Path) -> KeptPorts {
    // FNV-1a: the same in every version and on every machine.
    let hash = folder.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let block = u16::try_from(hash % u64::from(BLOCKS)).unwrap_or_default();
    let first = FIRST_PORT + block * PORTS;
    let mut ports = Ports::default();
    ports.metadata = first + 1;
    ports.authority = first + 2;
    ports.federation = first + 3;
    ports.service_fabric = first + 4;
    ports.token_proxy = first + 5;
    ports.management = first + 6;
    ports.arc = first + 7;
    KeptPorts {
        postgres: first,
        page: FIRST_PAGE_PORT + block,
        pgbouncer: FIRST_PGBOUNCER_PORT + block,
        azure: ports,
    }
}

/// The folder with the certificate authorities of this user's clouds: `pgentra/local` in
/// `XDG_STATE_HOME`, else in `~/.local/state`. `None`: the environment names neither.
pub fn state_folder(env: &Env) -> Option<PathBuf> {
    let named = |name: &str| env.get(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")));
    Some(state?.join("pgentra/local"))
}

/// The certificate authority of the cloud called `name`, made and kept at its first start. Only its
/// user can read it. `None`: there is no folder to keep it in.
///
/// # Errors
/// If the file or its folder belongs to another user or can be read by one, or cannot be read.
pub(crate) fn authority(env: &Env, name: &str) -> Result<Option<Authority>, Failure> {
    let Some(folder) = state_folder(env) else { return Ok(None) };
    if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "the certificate authority is not kept");
        return Ok(None);
    }
    authority_in(&folder, name).map(Some)
}

fn authority_in(folder: &Path, name: &str) -> Result<Authority, Failure> {
    let cannot_read =
        |error| Failure::machine(&format!("cannot read {}", folder.join(name).display()), error);
    check_private(folder)?;
    let file = folder.join(format!("{name}.pem"));
    match fs::symlink_metadata(&file) {
        Ok(found) => {
            check_private(&file)?;
            let readable = found.is_file() && found.len() <= LONGEST;
            let text = if readable { fs::read_to_string(&file).map_err(cannot_read)? } else { String::new() };
            Authority::from_pem(&text).map_err(|error| {
                Failure::machine(&format!("{} is not a certificate authority", file.display()), error)
                    .with_hint("remove it; the next start makes a new one")
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let authority = Authority::of_loopback()
                .map_err(|error| Failure::machine("cannot make a certificate authority", error))?;
            write(&file, authority.to_pem().expose_secret())?;
            Ok(authority)
        }
        Err(error) => Err(cannot_read(error)),
    }
}

/// The certificate authority in these two files, in PEM.
///
/// # Errors
/// If a file cannot be read, or they are not an authority and its key.
pub(crate) fn given_authority(certificate: &Path, key: &Path) -> Result<Authority, Failure> {
    let unusable = |error: &dyn Error| {
        let files = format!("{} and {}", certificate.display(), key.display());
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::new(FailureKind::Usage, format!("{files} are no certificate authority with its key: {error}{cause}"))
            .with_hint("openssl req -x509 -newkey rsa:2048 -noenc -subj '/CN=my authority' -keyout ca.key -out ca.crt makes both files")
    };
    let mut text = String::new();
    for file in [certificate, key] {
        File::open(file)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
            .map_err(|error| unusable(&error))?;
        text.push('\n');
    }
    Authority::from_pem(&text).map_err(|error| unusable(&error))
}

/// Refuses what another user made or may read: with the key, that user could pose as the cloud.
fn check_private(path: &Path) -> Result<(), Failure> {
    let found = fs::symlink_metadata(path)
        .map_err(|error| Failure::machine(&format!("cannot look at {}", path.display()), error))?;
    let is_private = !found.is_symlink()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.permissions().mode() & 0o077 == 0;
    if is_private {
        return Ok(());
    }
    let message = format!("{} may be read by other users", path.display());
    Err(Failure::new(FailureKind::Machine, message)
        .with_hint("it holds private keys: remove it, or make it yours alone with chmod go="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_kept_for_its_user_alone() {
        let base = tempfile::tempdir().unwrap();
        let env = Env::from_map([("XDG_STATE_HOME", base.path().join("state").to_str().unwrap())]);
        let authority = |name: &str| authority(&env, name).map(Option::unwrap);
        let folder = state_folder(&env).unwrap();
        let first = authority("one").unwrap();
        let file = folder.join("one.pem");
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(authority("one").unwrap().pem(), first.pem());
        assert_ne!(authority("two").unwrap().pem(), first.pem());

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = authority("one").unwrap_err();
        assert!(failure.to_string().contains("may be read by other users"), "{failure}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(authority("one").is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(&file, "nonsense").unwrap();
        let failure = authority("one").unwrap_err();
        assert!(failure.to_string().contains("is not a certificate authority"), "{failure}");
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let base = tempfile::NamedTempFile::new().unwrap();
        for env in [
            Env::from_map::<String, String>([]),
            Env::from_map([("HOME".to_owned(), base.path().display().to_string())]),
        ] {
            assert!(authority(&env, "one").unwrap().is_none());
        }
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let [one, two] = [Authority::of_loopback(), Authority::of_loopback()].map(Result::unwrap);
        let mixed = format!("{}{}", one.pem(), two.to_pem().expose_secret().replace(two.pem(), ""));
        assert!(Authority::from_pem(&mixed).is_err());
        assert_eq!(Authority::from_pem(one.to_pem().expose_secret()).unwrap().pem(), one.pem());
    }

    #[test]
    fn an_authority_can_be_given() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["ca.crt", "ca.key"].map(|name| folder.path().join(name));
        let made = Authority::named("an authority").unwrap();
        fs::write(&certificate, made.pem()).unwrap();
        fs::write(&key, made.to_pem().expose_secret().replace(made.pem(), "")).unwrap();
        assert_eq!(given_authority(&certificate, &key).unwrap().pem(), made.pem());
        fs::write(&key, Authority::generate().unwrap().to_pem().expose_secret().replace(made.pem(), ""))
            .unwrap();
        let failure = given_authority(&certificate, &key).unwrap_err().to_string();
        assert!(failure.contains("not that of the certificate"), "{failure}");
        let failure = given_authority(&certificate, &folder.path().join("none")).unwrap_err().to_string();
        assert!(failure.contains("No such file"), "{failure}");
    }

    #[test]
    fn ports_depend_on_the_folder_alone() {
        let ports = ports_of("/run/user/1000/pgentra-default");
        let first = ports.postgres;
        assert_eq!((ports.azure.metadata, ports.azure.arc), (first + 1, first + 7));
        assert_eq!(ports_of("/run/user/1000/pgentra-default").postgres, first);
        assert_eq!(ports_of("/run/user/1000/pgentra-default").page, ports.page);
        assert_ne!(ports_of("/run/user/1000/pgentra-other").postgres, first);
        assert_ne!(ports_of("/run/user/1000/pgentra-other").page, ports.page);
        assert_ne!(ports_of("/run/user/1001/pgentra-default").postgres, first);
        for folder in 0..1000 {
            let KeptPorts { postgres: first, page, pgbouncer, .. } =
                ports_of(&format!("/tmp/pgentra-{folder}"));
            assert!((FIRST_PGBOUNCER_PORT..FIRST_PAGE_PORT).contains(&pgbouncer), "{pgbouncer}");
            assert!((FIRST_PAGE_PORT..FIRST_PORT).contains(&page), "{page}");
            assert!((FIRST_PORT..32_768).contains(&first) && (first + PORTS) <= 32_768, "{first}");
        }
    }

    fn ports_of(folder: &str) -> KeptPorts {
        ports(Path::new(folder))
    }

    #[test]
    fn the_state_folder_is_an_absolute_one() {
        let of = |variables: &[(&str, &str)]| state_folder(&Env::from_map(variables.iter().copied()));
        assert_eq!(of(&[("HOME", "/home/a")]), Some("/home/a/.local/state/pgentra/local".into()));
        assert_eq!(of(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")]), Some("/s/pgentra/local".into()));
        assert_eq!(of(&[("XDG_STATE_HOME", "s")]), None);
        assert_eq!(of(&[]), None);
    }
}
