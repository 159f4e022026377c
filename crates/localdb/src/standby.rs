//! A streaming replica of a local PostgreSQL.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use secrecy::ExposeSecret;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use crate::StartError;
use crate::blocking::to_its_end;
use crate::local_db::LocalDb;
use crate::site::{Options, Site};
use crate::timings::StartTimings;

/// The name of a standby at its primary: the application name of its replication, and its replication slot.
const NAME: &str = "standby";

/// Folders of which a copy has no content (PostgreSQL, "Backing Up the Data Directory").
const EMPTIED: [&str; 8] = [
    "pg_wal",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];

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

/// Copies the primary's files while it runs (PostgreSQL, "Making a Base Backup Using the Low Level API").
async fn copy(site: &Site, primary: &LocalDb) -> io::Result<()> {
    let (client, driver) = superuser(primary).await.map_err(io::Error::other)?;
    let is_renamed =
        primary.version().split('.').next().and_then(|it| it.parse().ok()).is_some_and(|it: u32| it >= 15);
    let (begin, end) = match is_renamed {
        true => ("SELECT pg_backup_start($1, true)::text", "SELECT labelfile FROM pg_backup_stop(false)"),
        false => (
            "SELECT pg_start_backup($1, true, false)::text",
            "SELECT labelfile FROM pg_stop_backup(false, false)",
        ),
    };
    let slot = "SELECT pg_create_physical_replication_slot($1, true)::text";
    client.query_one(slot, &[&NAME]).await.map_err(io::Error::other)?;
    client.query_one(begin, &[&NAME]).await.map_err(io::Error::other)?;
    let (from, to) = (primary.data().to_owned(), site.data());
    to_its_end({
        let to = to.clone();
        move || copy_tree(&from, &to, true)
    })
    .await
    .map_err(io::Error::other)??;
    let label: String = client.query_one(end, &[]).await.map_err(io::Error::other)?.get(0);
    drop(client);
    let _ = driver.await;
    fs::write(to.join("backup_label"), label)?;
    fs::write(to.join("standby.signal"), "")?;
    let mut settings = fs::OpenOptions::new().append(true).open(to.join("postgresql.auto.conf"))?;
    writeln!(settings, "primary_conninfo = {}", setting(&conninfo(primary)))?;
    writeln!(settings, "primary_slot_name = '{NAME}'")?;
    site.hand_over(&to)
}

/// A superuser session, and the task that drives it.
async fn superuser(
    primary: &LocalDb,
) -> Result<(Client, tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(primary.socket_dir())
        .port(primary.port())
        .user(primary.superuser())
        .password(primary.password().expose_secret())
        .dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    Ok((client, tokio::spawn(connection)))
}

/// Copies a folder. A file that ends while it is copied is left out, as the server's log says what became of it.
fn copy_tree(from: &Path, to: &Path, is_root: bool) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if (is_root && text.starts_with("postmaster.")) || text.starts_with("pgsql_tmp") {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let is_folder = match entry.file_type() {
            Ok(kind) => kind.is_dir(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let copied = match is_folder {
            true if is_root && EMPTIED.contains(&&*text) => builder.create(&target),
            true => copy_tree(&source, &target, false),
            false => fs::copy(&source, &target).map(drop),
        };
        match copied {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
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
