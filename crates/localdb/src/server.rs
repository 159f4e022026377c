use std::path::{Path, PathBuf};
use std::process::Command;

use crate::StartError;

/// Which PostgreSQL to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Server {
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
        let output = Command::new(&self.postgres)
            .arg("--version")
            .env_clear()
            .output()
            .map_err(StartError::io("ask the PostgreSQL server for its version"))?;
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
