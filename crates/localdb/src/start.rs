use std::fmt::Write as _;
use std::io;

use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::SecretString;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::blocking::to_its_end;
use crate::error::StartError;
use crate::local_db::LocalDb;
use crate::site::{Options, Site};
use crate::timings::StartTimings;

/// Makes a new, empty PostgreSQL and waits until it takes connections: about a second.
///
/// The server listens only on a Unix socket, in a folder that its user alone can enter. Every role needs its SCRAM
/// password: peer authentication is not used, as the embedded PostgreSQL cannot read the uid of a peer. `fsync` is off:
/// data may be lost in a crash of the machine.
///
/// Cancel-safe: dropped before it is done, it removes whatever it made, and blocks until that is done. Needs a tokio runtime with IO and time.
///
/// # Errors
/// See [`StartError`]. After an error nothing is left behind.
pub async fn start(options: Options) -> Result<LocalDb, StartError> {
    let begin = Instant::now();
    let mut site = match to_its_end(move || Site::prepare(&options)).await {
        Ok(site) => site?,
        Err(panicked) => return Err(StartError::io("prepare the folder")(io::Error::other(panicked))),
    };
    let password = random_password()?;
    let mut timings = StartTimings { unpack: begin.elapsed(), ..StartTimings::default() };
    match site.build(&password, &mut timings).await {
        Ok(server) => Ok(LocalDb::new(server, site, password, timings)),
        Err(error) => {
            // The clean-up blocks. It runs to its end also if this future is dropped.
            let _ = spawn_blocking(move || drop(site)).await;
            Err(error)
        }
    }
}

fn random_password() -> Result<SecretString, StartError> {
    let mut bytes = [0; 32];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| StartError::io("draw a random password")(io::Error::other(error)))?;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
    }
    Ok(text.into())
}
