use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::StartError;

/// The PostgreSQL installation that is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Installation {
    /// The one that comes with this build. Linux with glibc and macOS have one, unless the feature `embedded` is off.
    #[default]
    Embedded,
    /// The one installed in this folder, which is the one with `initdb` and `postgres` or its parent, such as
    /// `/usr/lib/postgresql/17`. Version 13 or later.
    Installed(PathBuf),
}

/// `initdb` and `postgres` of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
}

impl Programs {
    pub(crate) fn in_bin(bin: &Path) -> Programs {
        Programs { initdb: bin.join("initdb"), postgres: bin.join("postgres") }
    }

    /// Finds them in `folder` or its `bin`.
    pub(crate) fn find(folder: &Path) -> Result<Programs, StartError> {
        let absolute =
            std::path::absolute(folder).map_err(StartError::io("find the installed PostgreSQL"))?;
        [absolute.join("bin"), absolute]
            .iter()
            .map(|bin| Programs::in_bin(bin))
            .find(|programs| programs.initdb.is_file() && programs.postgres.is_file())
            .ok_or_else(|| StartError::NotInstalled { folder: folder.to_owned() })
    }

    /// Asks the server for its version, such as "15.18".
    pub(crate) fn version(&self) -> Result<String, StartError> {
        let ask = || Command::new(&self.postgres).arg("--version").env_clear().output();
        let output = once_free(ask).map_err(StartError::io("ask the PostgreSQL server for its version"))?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let answer = answer.lines().next().unwrap_or_default();
        match parse_version(answer) {
            Some((major, version)) if major >= OLDEST_MAJOR => Ok(version.to_owned()),
            _ => Err(StartError::Version {
                program: self.postgres.clone(),
                answer: answer.chars().take(200).collect(),
                oldest: OLDEST_MAJOR,
            }),
        }
    }
}

/// Runs a program file that was just written. If another thread forked a child meanwhile, the child has inherited the
/// writable file descriptor until its `execve`, and the system does not run a file that is open for writing (execve(2),
/// ETXTBSY): so it is retried.
pub(crate) fn once_free<T>(mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..BUSY_ATTEMPTS {
        match run() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            ran => return ran,
        }
    }
    run()
}

/// Each takes as long as starting a program does, and so does what is waited for.
const BUSY_ATTEMPTS: usize = 100;

/// The oldest version that the tests were run with.
const OLDEST_MAJOR: u32 = 13;

/// From "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "postgres (PostgreSQL) 18beta1": the major version as
/// a number, the whole as text.
fn parse_version(answer: &str) -> Option<(u32, &str)> {
    let version = answer.strip_prefix("postgres (PostgreSQL) ")?.split(' ').next()?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version[..digits].parse().ok()?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_just_written_runs_once_nobody_holds_it_open() {
        let busy = || io::Error::from(ErrorKind::ExecutableFileBusy);
        let mut left = 3;
        let ran = once_free(|| {
            left -= 1;
            if left > 0 { Err(busy()) } else { Ok("ran") }
        });
        assert_eq!(ran.unwrap(), "ran");
        let mut tried = 0;
        let stuck = once_free(|| {
            tried += 1;
            Err::<(), _>(busy())
        });
        assert_eq!((stuck.unwrap_err().kind(), tried), (ErrorKind::ExecutableFileBusy, BUSY_ATTEMPTS));
        let absent = once_free(|| Err::<(), _>(io::Error::from(ErrorKind::NotFound)));
        assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn versions_are_read() {
        for (answer, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, "15.18"))),
            ("postgres (PostgreSQL) 17.5", Some((17, "17.5"))),
            ("postgres (PostgreSQL) 18beta1", Some((18, "18beta1"))),
            ("postgres (PostgreSQL) 9.6.24", Some((9, "9.6.24"))),
            ("postgres (PostgreSQL) devel", None),
            ("postgres (PostgreSQL) ", None),
            ("mysqld  Ver 8.0.36", None),
            ("", None),
        ] {
            assert_eq!(parse_version(answer), expected, "{answer:?}");
        }
    }
}
