//! A streaming replica of a local PostgreSQL.

use std::fs;
use std::io::{self, Write as _};

use secrecy::ExposeSecret;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::StartError;
use crate::blocking::to_its_end;
use crate::local_db::LocalDb;
use crate::site::{Options, Site};
use crate::timings::StartTimings;

/// The name of a standby at its primary: the application name of its replication, and its replication slot.
const NAME: &str = "standby";

/// Makes a hot standby of `primary` and waits until it takes connections: a second or two. It replays what the primary
/// commits. `SELECT pg_promote()` makes it a primary, and so does nothing else: when the primary ends, it waits for it.
///
/// Its installation has to be of the primary's major version. It has the roles and passwords of the primary, and a
/// socket of its own. One primary can have one standby. The primary keeps its WAL for it, and waits for none of its
/// commits to get there unless `synchronous_standby_names` says `*`. The primary's password is in a file of the standby's
/// folder, which its server's user alone can enter.
///
/// Cancel-safe: dropped before it is done, it removes whatever it made, and blocks until that is done. Needs a tokio runtime with IO and time.
///
/// # Errors
/// See [`StartError`]. After an error no file and no process is left behind.
pub async fn start_standby(options: Options, primary: &LocalDb) -> Result<LocalDb, StartError> {
    let begin = Instant::now();
    let mut site = match to_its_end(move || Site::prepare(&options)).await {
        Ok(site) => site?,
        Err(panicked) => return Err(StartError::io("prepare the folder")(io::Error::other(panicked))),
    };
    let mut timings = StartTimings { unpack: begin.elapsed(), ..StartTimings::default() };
    match build(&mut site, primary, &mut timings).await {
        Ok(server) => Ok(LocalDb::new(server, site, primary.password().clone(), timings)),
        Err(error) => {
            // The clean-up blocks. It runs to its end also if this future is dropped.
            let _ = spawn_blocking(move || drop(site)).await;
            Err(error)
        }
    }
}

async fn build(site: &mut Site, primary: &LocalDb, timings: &mut StartTimings) -> Result<Child, StartError> {
    let begin = Instant::now();
    let copied = copy(site, primary).await;
    copied.map_err(StartError::io("copy the primary's data"))?;
    timings.initdb = begin.elapsed();
    let begin = Instant::now();
    let server = site.launch().await?;
    timings.start = begin.elapsed();
    Ok(server)
}

/// Copies the primary's files while it runs.
async fn copy(site: &Site, primary: &LocalDb) -> io::Result<()> {
    let backup = primary.backup();
    let (client, driver) = backup.superuser().await.map_err(io::Error::other)?;
    let slot = "SELECT pg_create_physical_replication_slot($1, true)::text";
    client.query_one(slot, &[&NAME]).await.map_err(io::Error::other)?;
    let to = site.data();
    site.take_back()?;
    let label = backup.copy_files(&client, NAME, &to).await?;
    drop(client);
    let _ = driver.await;
    fs::write(to.join("backup_label"), label.text)?;
    fs::write(to.join("standby.signal"), "")?;
    let mut settings = fs::OpenOptions::new().append(true).open(to.join("postgresql.auto.conf"))?;
    writeln!(settings, "primary_conninfo = {}", setting(&conninfo(primary)))?;
    writeln!(settings, "primary_slot_name = '{NAME}'")?;
    site.hand_over(&to)
}

/// The connection string of the replication.
fn conninfo(primary: &LocalDb) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"));
    format!(
        "host={} port={} user={} password={} application_name={NAME}",
        quoted(&primary.socket_dir().to_string_lossy()),
        primary.port(),
        primary.superuser(),
        quoted(primary.password().expose_secret()),
    )
}

/// A text in PostgreSQL's configuration file (PostgreSQL, "Parameter Interaction via the Configuration File").
fn setting(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_quoted_twice() {
        assert_eq!(setting(r"host='it\'s'"), r"'host=''it\\''s'''");
    }
}
