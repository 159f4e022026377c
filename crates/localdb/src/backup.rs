//! A copy of the files of a running PostgreSQL.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::blocking::to_its_end;
use crate::site::{PORT, SUPERUSER};

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

/// Copies the data of a PostgreSQL while others use it. It does not keep the server.
#[derive(Debug, Clone)]
pub struct Backup {
    socket_dir: PathBuf,
    data: PathBuf,
    password: SecretString,
    version: String,
}

impl Backup {
    pub(crate) fn new(socket_dir: &Path, data: &Path, password: &SecretString, version: &str) -> Self {
        let (socket_dir, data) = (socket_dir.to_owned(), data.to_owned());
        Self { socket_dir, data, password: password.clone(), version: version.to_owned() }
    }

    /// Copies the data into the folder `to`, which must not exist. [`start_saved`](crate::start_saved) starts a server
    /// with the copy: it has each commit that was acknowledged before the call, and is consistent. Unlogged tables are
    /// empty in it, and replication slots are missing.
    ///
    /// Cancel-safe: dropped before it is done, it blocks until nothing is copied any more. A copy that is not complete
    /// is left.
    ///
    /// # Errors
    /// If the server does not answer, or a file cannot be copied.
    pub async fn copy(&self, to: &Path) -> io::Result<()> {
        let (client, driver) = self.superuser().await.map_err(io::Error::other)?;
        // WAL that the copy needs stays until the session ends.
        let slot =
            "SELECT pg_create_physical_replication_slot('copy_' || pg_backend_pid(), true, true)::text";
        client.query_one(slot, &[]).await.map_err(io::Error::other)?;
        let BackupLabel { text, first_wal, last_wal } = self.copy_files(&client, "copy", to).await?;
        let (from, to) = (self.data.join("pg_wal"), to.to_owned());
        to_its_end(move || {
            fs::write(to.join("backup_label"), text)?;
            copy_wal(&from, &to.join("pg_wal"), &first_wal, &last_wal)
        })
        .await
        .map_err(io::Error::other)??;
        drop(client);
        let _ = driver.await;
        Ok(())
    }

    /// Copies all files but WAL (PostgreSQL, "Making a Base Backup Using the Low Level API").
    pub(crate) async fn copy_files(&self, client: &Client, name: &str, to: &Path) -> io::Result<BackupLabel> {
        let is_renamed =
            self.version.split('.').next().and_then(|it| it.parse().ok()).is_some_and(|it: u32| it >= 15);
        let (begin, end) = match is_renamed {
            true => ("pg_backup_start($1, true)", "pg_backup_stop(false)"),
            false => ("pg_start_backup($1, true, false)", "pg_stop_backup(false, false)"),
        };
        let begin = format!("SELECT pg_walfile_name({begin})");
        let first_wal = client.query_one(&begin, &[&name]).await.map_err(io::Error::other)?.get(0);
        let (from, target) = (self.data.clone(), to.to_owned());
        to_its_end(move || copy_tree(&from, &target, true)).await.map_err(io::Error::other)??;
        let end = format!("SELECT labelfile, pg_walfile_name(lsn) FROM {end}");
        let row = client.query_one(&end, &[]).await.map_err(io::Error::other)?;
        Ok(BackupLabel { text: row.get(0), first_wal, last_wal: row.get(1) })
    }

    /// A superuser session, and the task that drives it.
    pub(crate) async fn superuser(
        &self,
    ) -> Result<(Client, JoinHandle<Result<(), tokio_postgres::Error>>), tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.socket_dir)
            .port(PORT)
            .user(SUPERUSER)
            .password(self.password.expose_secret())
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        Ok((client, tokio::spawn(connection)))
    }
}

/// What a server says of a backup when it ends.
pub(crate) struct BackupLabel {
    /// The content of `backup_label`.
    pub(crate) text: String,
    /// The names of the first and of the last file of WAL that recovery reads.
    first_wal: String,
    last_wal: String,
}

/// Copies the files of WAL from `first` to `last`. Their names sort by age.
fn copy_wal(from: &Path, to: &Path, first: &str, last: &str) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.len() == last.len() && (first..=last).contains(&name)) {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    match to.join(last).is_file() {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::NotFound, format!("the server has no file {last} of WAL"))),
    }
}

/// Copies a file, and nothing that a link leads to: the folder may belong to another user than this one.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    // A FIFO would block without a writer.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut from = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(from)?;
    if !from.metadata()?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    io::copy(&mut from, &mut OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?)?;
    Ok(())
}

/// Copies a folder. A file that ends while it is copied is left out, as the server's log says what became of it.
fn copy_tree(from: &Path, to: &Path, is_root: bool) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
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
            false => copy_file(&source, &target),
        };
        match copied {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("data"), base.path().join("copy"));
        fs::create_dir_all(from.join("base")).unwrap();
        fs::write(base.path().join("secret"), "s3cret").unwrap();
        fs::write(from.join("base/1"), "rows").unwrap();
        copy_tree(&from, &to, true).unwrap();
        assert_eq!(fs::read_to_string(to.join("base/1")).unwrap(), "rows");
        std::os::unix::fs::symlink(base.path().join("secret"), from.join("base/2")).unwrap();
        fs::remove_dir_all(&to).unwrap();
        assert!(copy_tree(&from, &to, true).is_err());
        assert!(!to.join("base/2").exists());
    }
}
