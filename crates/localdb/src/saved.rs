//! A PostgreSQL with the data of an earlier one.

use std::io;
use std::path::Path;

use secrecy::SecretString;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::blocking::to_its_end;
use crate::error::StartError;
use crate::local_db::LocalDb;
use crate::site::{Options, Site};
use crate::timings::StartTimings;

/// The data of an earlier PostgreSQL of this crate: what must be known of it to use its files.
#[derive(Debug, Clone)]
pub struct SavedData {
    /// [`LocalDb::version`] of the server that wrote it.
    pub version: String,
    /// [`SavedData::platform`] of the machine that wrote it.
    pub platform: String,
    /// [`LocalDb::password`] of the server that wrote it, which the new one has too.
    pub password: SecretString,
}

impl SavedData {
    /// The processor and the system of this build, such as "x86_64-linux". Files of a server are bound to them.
    pub fn platform() -> String {
        format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
    }

    /// Whether a server of this version can use the files.
    ///
    /// # Errors
    /// [`StartError::OtherVersion`] and [`StartError::OtherPlatform`].
    fn check(&self, version: &str) -> Result<(), StartError> {
        let found = Self::platform();
        if self.platform != found {
            return Err(StartError::OtherPlatform { saved: self.platform.clone(), found });
        }
        let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
        if major(&self.version) != major(version) {
            return Err(StartError::OtherVersion { saved: self.version.clone(), found: version.to_owned() });
        }
        Ok(())
    }
}

/// Starts a PostgreSQL with the files of an earlier one and waits until it takes connections. `fill` writes the files
/// into the folder that it gets: what [`LocalDb::data`] had after [`LocalDb::shut_down`], or
/// [`Backup::copy`](crate::Backup::copy) has written. It is called on a thread for blocking work, after the version was
/// checked. `pg_hba.conf` is written anew.
///
/// Cancel-safe: dropped before it is done, it removes whatever it made, and blocks until that is done. Needs a tokio
/// runtime with IO and time.
///
/// # Errors
/// See [`StartError`]. After an error nothing is left behind.
pub async fn start_saved(
    options: Options,
    saved: SavedData,
    fill: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<LocalDb, StartError> {
    let begin = Instant::now();
    let mut site = match to_its_end(move || Site::prepare(&options)).await {
        Ok(site) => site?,
        Err(panicked) => return Err(StartError::io("prepare the folder")(io::Error::other(panicked))),
    };
    let mut timings = StartTimings { unpack: begin.elapsed(), ..StartTimings::default() };
    let started = match saved.check(&site.version) {
        Ok(()) => site.revive(fill, &mut timings).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(server) => Ok(LocalDb::new(server, site, saved.password, timings)),
        Err(error) => {
            // The clean-up blocks. It runs to its end also if this future is dropped.
            let _ = spawn_blocking(move || drop(site)).await;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_and_the_platform_must_be_the_same() {
        let saved = SavedData {
            version: "17.5".to_owned(),
            platform: SavedData::platform(),
            password: SecretString::from(""),
        };
        saved.check("17.6").unwrap();
        let other = saved.check("15.18").unwrap_err().to_string();
        assert_eq!(other, "the data is of PostgreSQL 17.5, and the server is PostgreSQL 15.18");
        let saved = SavedData { platform: "s390x-linux".to_owned(), ..saved };
        assert!(matches!(saved.check("17.5"), Err(StartError::OtherPlatform { .. })));
    }
}
