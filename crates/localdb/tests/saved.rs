//! A server with the data of an earlier one: after its end, and copied while others write.
#![cfg(feature = "embedded")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failing helper fails its test; a skipped test says so"
)]

mod place;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use eventually::{DEADLINE, eventually};
use pgentra_localdb::{Installation, LocalDb, SavedData, StartError, start, start_saved, start_standby};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use tokio_postgres::{Client, NoTls};

use place::{options, place};

async fn superuser(db: &LocalDb) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host_path(db.socket_dir()).port(db.port()).user(db.superuser()).dbname("postgres");
    config.password(db.password().expose_secret());
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn saved(db: &LocalDb) -> SavedData {
    SavedData {
        version: db.version().to_owned(),
        platform: SavedData::platform(),
        password: db.password().clone(),
    }
}

/// Copies a folder without the file that locks it.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-rT").args([from, to]).status().unwrap();
    assert!(copied.success());
    let _ = fs::remove_file(to.join("postmaster.pid"));
}

fn fill(from: PathBuf) -> impl FnOnce(&Path) -> std::io::Result<()> + Send + 'static {
    move |to| {
        copy(&from, to);
        Ok(())
    }
}

/// The embedded server, and an installed one if this machine has one.
fn servers() -> Vec<Installation> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut installed = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let installed = installed.find(|folder| folder.join("bin/initdb").exists());
    if installed.is_none() {
        println!("not on an installed server: no PostgreSQL below /usr/lib/postgresql");
    }
    [Installation::Embedded].into_iter().chain(installed.map(Installation::Installed)).collect()
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_data_of_a_server_that_was_shut_down_starts_again() {
    for server in servers() {
        let place = place();
        let db = start(options(place.path().join("db"), server.clone())).await.unwrap();
        let client = superuser(&db).await;
        client
            .batch_execute("CREATE ROLE \"my-api\"; CREATE UNLOGGED TABLE t AS SELECT 7 AS n")
            .await
            .unwrap();
        client.batch_execute("ALTER SYSTEM SET listen_addresses = '*'").await.unwrap();
        db.shut_down().await.unwrap();
        assert!(!db.data().join("postmaster.pid").exists(), "it has ended in order");
        let kept = place.path().join("kept");
        copy(db.data(), &kept);
        let saved = saved(&db);
        db.stop().await;
        for turn in ["first", "second"] {
            let folder = place.path().join(turn);
            let db = start_saved(options(&folder, server.clone()), saved.clone(), fill(kept.clone()))
                .await
                .unwrap();
            let client = superuser(&db).await;
            assert_eq!(count(&client, "SELECT n::int8 FROM t").await, 7);
            let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'my-api'";
            assert_eq!(count(&client, roles).await, 1);
            let listens: String = client.query_one("SHOW listen_addresses", &[]).await.unwrap().get(0);
            assert_eq!(listens, "");
            let settings = fs::read_to_string(db.data().join("postgresql.conf")).unwrap();
            assert_eq!(settings.matches("wal_level = 'logical'").count(), 1, "{settings}");
            db.stop().await;
            assert!(!folder.exists());
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_running_server_has_every_acknowledged_row() {
    for server in servers() {
        let place = place();
        let db = start(options(place.path().join("db"), server.clone())).await.unwrap();
        let client = superuser(&db).await;
        // Each transaction moves one between two accounts, in a table that is updated all the time.
        client
            .batch_execute(
                "CREATE TABLE written (id bigserial PRIMARY KEY, filler text);
                 CREATE TABLE account (id int PRIMARY KEY, amount int8);
                 INSERT INTO account VALUES (1, 0), (2, 0)",
            )
            .await
            .unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (db, stop) = (superuser(&db), stop.clone());
                async move {
                    let client = db.await;
                    let work = "BEGIN; INSERT INTO written (filler) SELECT repeat('x', 500) FROM generate_series(1, 20);
                        UPDATE account SET amount = amount - 1 WHERE id = 1;
                        UPDATE account SET amount = amount + 1 WHERE id = 2; COMMIT";
                    while !stop.is_cancelled() {
                        client.batch_execute(work).await.unwrap();
                    }
                }
            })
            .collect();
        let check = async {
            let wrote = async || count(&client, "SELECT count(*) FROM written").await > 2_000;
            eventually(DEADLINE, "the writers write", wrote).await;
            let backup = db.backup();
            let mut copies = Vec::new();
            for name in ["one", "two"] {
                let copy = place.path().join(name);
                let before = count(&client, "SELECT count(*) FROM written").await;
                backup.copy(&copy).await.unwrap();
                copies.push((copy, before));
            }
            stop.cancel();
            copies
        };
        let (copies, _) = futures_util::join!(check, futures_util::future::join_all(writers));
        let none_left = async || count(&client, "SELECT count(*) FROM pg_replication_slots").await == 0;
        eventually(DEADLINE, "a copy leaves no slot", none_left).await;
        let saved = saved(&db);
        db.stop().await;
        for (number, (copy, before)) in copies.into_iter().enumerate() {
            let folder = options(place.path().join(number.to_string()), server.clone());
            let db = start_saved(folder, saved.clone(), fill(copy)).await.unwrap();
            let client = superuser(&db).await;
            let rows = count(&client, "SELECT count(*) FROM written").await;
            assert!(rows >= before, "{rows} rows, of {before} that were acknowledged before the copy");
            let moved = count(&client, "SELECT amount FROM account WHERE id = 2").await;
            assert_eq!(moved * 20, rows, "whole transactions only");
            assert_eq!(count(&client, "SELECT sum(amount)::int8 FROM account").await, 0);
            // The index has the rows of the table.
            let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off";
            client.batch_execute(by_index).await.unwrap();
            let found = count(&client, "SELECT count(*) FROM written WHERE id > 0").await;
            assert_eq!(found, rows);
            client.batch_execute("INSERT INTO written (filler) VALUES ('after')").await.unwrap();
            db.stop().await;
        }
    }
}

#[tokio::test]
async fn data_of_another_version_is_refused_before_it_is_read() {
    let place = place();
    let folder = place.path().join("db");
    let other = SavedData {
        version: "11.22".to_owned(),
        platform: SavedData::platform(),
        password: String::new().into(),
    };
    let refused = start_saved(options(&folder, Installation::Embedded), other, |_| panic!("it is read"))
        .await
        .unwrap_err();
    assert!(matches!(refused, StartError::OtherVersion { .. }), "{refused}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn data_that_cannot_be_read_leaves_nothing() {
    let place = place();
    let folder = place.path().join("db");
    let saved = SavedData {
        version: "17.5".to_owned(),
        platform: SavedData::platform(),
        password: String::new().into(),
    };
    let refused = start_saved(options(&folder, Installation::Embedded), saved, |_| {
        Err(std::io::Error::other("a damaged file"))
    })
    .await
    .unwrap_err();
    assert!(matches!(refused, StartError::Io { .. }), "{refused}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_standby_can_be_made_of_saved_data() {
    let place = place();
    let db = start(options(place.path().join("db"), Installation::Embedded)).await.unwrap();
    db.shut_down().await.unwrap();
    let kept = place.path().join("kept");
    copy(db.data(), &kept);
    let saved = saved(&db);
    db.stop().await;
    let db = start_saved(options(place.path().join("again"), Installation::Embedded), saved, fill(kept))
        .await
        .unwrap();
    let standby =
        start_standby(options(place.path().join("standby"), Installation::Embedded), &db).await.unwrap();
    let client = superuser(&standby).await;
    let is_standby: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(is_standby);
    standby.stop().await;
    db.stop().await;
}

#[tokio::test]
async fn a_server_that_crashed_has_ended_when_its_last_process_has() {
    let place = place();
    let mut db = start(options(place.path().join("db"), Installation::Embedded)).await.unwrap();
    let client = superuser(&db).await;
    client.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let backend = Pid::from_raw(backend).unwrap();
    kill_process(backend, Signal::STOP).unwrap();
    db.kill();
    db.ended().await.unwrap();
    {
        let mut ends = std::pin::pin!(db.shut_down());
        let first = std::future::poll_fn(|context| std::task::Poll::Ready(ends.as_mut().poll(context)));
        assert!(first.await.is_pending(), "a session of it is left");
        kill_process(backend, Signal::CONT).unwrap();
        ends.await.unwrap();
    }
    let kept = place.path().join("kept");
    copy(db.data(), &kept);
    let saved = saved(&db);
    db.stop().await;
    let folder = place.path().join("again");
    let db = start_saved(options(folder, Installation::Embedded), saved, fill(kept)).await.unwrap();
    assert_eq!(count(&superuser(&db).await, "SELECT n::int8 FROM t").await, 7);
    db.stop().await;
}
