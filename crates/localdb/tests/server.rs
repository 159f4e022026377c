//! A real PostgreSQL, embedded and installed: what it grants, to whom, and what is left of it.
#![cfg(feature = "embedded")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failing helper fails its test; a skipped test says so"
)]

mod place;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_localdb::{Installation, LocalDb, StartError, start, start_standby};
use secrecy::ExposeSecret;
use tokio_postgres::{Client, NoTls};

use place::{options, place};

/// Signs in on the socket as libpq would.
async fn sign_in(db: &LocalDb, user: &str, password: Option<&str>) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(db.socket_dir()).port(db.port()).user(user).dbname("postgres");
    if let Some(password) = password {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn superuser(db: &LocalDb) -> Client {
    sign_in(db, db.superuser(), Some(db.password().expose_secret())).await.unwrap()
}

/// The folder with an installed PostgreSQL, if this machine has one.
fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.filter_map(|entry| Some(entry.ok()?.path())).find(|folder| folder.join("bin/initdb").exists())
}

/// The whole life of a server; the version that it reports.
async fn check_life(server: Installation) -> String {
    let place = place();
    let folder = place.path().join("it's a db, with odd names ü");
    let db = start(options(&folder, server)).await.unwrap();
    println!("{} took {:?}", db.version(), db.timings());
    assert_eq!((db.superuser(), db.port()), ("azuresu", 5432));

    let client = superuser(&db).await;
    let row = client
        .query_one(
            "SELECT current_setting('server_version'), current_setting('listen_addresses'), pg_backend_pid()",
            &[],
        )
        .await
        .unwrap();
    assert!(row.get::<_, String>(0).starts_with(db.version()));
    assert_eq!(row.get::<_, String>(1), "");
    client
        .batch_execute("CREATE ROLE guest LOGIN PASSWORD 'let me in'; CREATE ROLE bare LOGIN")
        .await
        .unwrap();

    // No connection is trusted: each role needs its password on the Unix socket too.
    assert!(sign_in(&db, "guest", Some("let me in")).await.is_ok());
    for (user, password) in
        [("guest", None), ("guest", Some("wrong")), ("bare", None), ("azuresu", None), ("azuresu", Some(""))]
    {
        assert!(sign_in(&db, user, password).await.is_err(), "{user} {password:?}");
    }
    let method =
        client.query_one("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'", &[]);
    assert_eq!(method.await.unwrap().get::<_, i64>(0), 0);

    let private = [folder.clone(), db.socket_dir().to_owned(), folder.join("data")];
    for folder in private {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700, "{}", folder.display());
    }
    assert!(!folder.join("password").exists());
    assert_unprivileged(&db);

    let version = db.version().to_owned();
    db.stop().await;
    assert!(!folder.exists());
    assert!(client.simple_query("SELECT 1").await.is_err());
    version
}

/// When the tests run as root, the server's files belong to another user.
fn assert_unprivileged(db: &LocalDb) {
    let owner = fs::metadata(db.socket_dir().join(".s.PGSQL.5432")).unwrap().uid();
    let ours = fs::metadata("/proc/self").map(|own| own.uid());
    if ours.is_ok_and(|uid| uid == 0) {
        assert_ne!(owner, 0);
    }
}

#[tokio::test]
async fn the_embedded_one_lives() {
    assert_eq!(check_life(Installation::Embedded).await, "17.5");
}

#[tokio::test]
async fn an_installed_one_lives() {
    let Some(folder) = installed() else {
        return println!("skipped: no PostgreSQL below /usr/lib/postgresql");
    };
    let version = check_life(Installation::Installed(folder.clone())).await;
    assert_eq!(Path::new(version.split('.').next().unwrap()), folder.file_name().unwrap());
    check_life(Installation::Installed(folder.join("bin"))).await;
}

/// A primary and its standby: what was committed is replayed, and the standby takes over after a crash.
async fn check_standby(server: Installation) {
    let place = place();
    let folder = |name: &str| place.path().join(name);
    let primary = start(options(folder("it's one"), server.clone())).await.unwrap();
    let client = superuser(&primary).await;
    client.batch_execute("CREATE TABLE ledger (id int)").await.unwrap();
    let standby = start_standby(options(folder("two"), server), &primary).await.unwrap();
    println!("the standby took {:?}", standby.timings());
    // From now on a commit is acknowledged when the standby has it.
    let wait = "ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()";
    for statement in wait.split("; ") {
        client.simple_query(statement).await.unwrap();
    }
    let is_waited_for = async || {
        let row = client.query_one("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", &[]);
        row.await.unwrap().get::<_, i64>(0) == 1
    };
    eventually(DEADLINE, "the primary waits for its standby", is_waited_for).await;
    client.batch_execute("INSERT INTO ledger SELECT generate_series(1, 100)").await.unwrap();
    let reader = superuser(&standby).await;
    let is_standby = reader.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap();
    assert!(is_standby.get::<_, bool>(0));
    assert!(reader.batch_execute("INSERT INTO ledger VALUES (0)").await.is_err(), "a standby only reads");

    primary.kill();
    eventually(DEADLINE, "the primary is gone", async || client.is_closed()).await;
    reader.query_one("SELECT pg_promote()", &[]).await.unwrap();
    reader.batch_execute("INSERT INTO ledger VALUES (101)").await.unwrap();
    let rows = reader.query_one("SELECT count(*) FROM ledger", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 101, "an acknowledged commit is lost");
    drop(primary);
    standby.stop().await;
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_embedded_one_has_a_standby() {
    check_standby(Installation::Embedded).await;
}

#[tokio::test]
async fn an_installed_one_has_a_standby() {
    let Some(folder) = installed() else {
        return println!("skipped: no PostgreSQL below /usr/lib/postgresql");
    };
    check_standby(Installation::Installed(folder)).await;
}

#[tokio::test]
async fn the_server_refuses_to_log_passwords() {
    let place = place();
    let db = start(options(place.path().join("db"), Installation::Embedded)).await.unwrap();
    let client = superuser(&db).await;
    client.batch_execute("ALTER ROLE nobody_here PASSWORD 'hush-hush'").await.unwrap_err();
    let log = fs::read_to_string(db.log()).unwrap();
    assert!(log.contains("nobody_here") && !log.contains("hush-hush"), "{log}");
    assert!(!log.contains(db.password().expose_secret()));
    assert!(!format!("{db:?}").contains(db.password().expose_secret()));
    db.stop().await;
}

#[tokio::test]
async fn dropping_it_is_enough() {
    let place = place();
    let folder = place.path().join("db");
    let db = start(options(&folder, Installation::Embedded)).await.unwrap();
    let client = superuser(&db).await;
    drop(db);
    assert!(!folder.exists());
    assert!(client.simple_query("SELECT 1").await.is_err());
}

#[tokio::test]
async fn its_end_is_noticed() {
    let place = place();
    let folder = place.path().join("db");
    let mut db = start(options(&folder, Installation::Embedded)).await.unwrap();
    let pid = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(!db.ended().await.unwrap().success());
    db.stop().await;
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_restarted_while_it_is_watched() {
    let place = place();
    let mut db = start(options(place.path().join("db"), Installation::Embedded)).await.unwrap();
    let client = superuser(&db).await;
    client.batch_execute("CREATE TABLE kept (a int)").await.unwrap();
    let restarter = db.restarter();
    let restarted = async {
        let sleeps = client.batch_execute("SELECT pg_sleep(600)");
        let (restarted, slept) = tokio::join!(restarter.restart(Duration::ZERO), sleeps);
        assert_eq!(slept.unwrap_err().code().map(|code| code.code()), Some("57P01"));
        restarted.unwrap();
    };
    // Its end is no failure.
    tokio::select! {
        biased;
        ended = db.ended() => panic!("{ended:?}"),
        () = restarted => {}
    }
    superuser(&db).await.batch_execute("SELECT * FROM kept").await.unwrap();
    db.kill();
    assert!(!db.ended().await.unwrap().success());
    db.stop().await;
    assert!(!place.path().join("db").exists());
    restarter.restart(Duration::ZERO).await.unwrap();
}

/// Dropping the future at any await leaves nothing, and its thread does not make the folders again that the caller removes.
#[tokio::test]
async fn a_cancelled_start_leaves_nothing() {
    let place = place();
    for stage in ["", "runtime/bin", "data", "data/postmaster.pid"] {
        let parent = place.path().join("cloud");
        fs::create_dir(&parent).unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o711)).unwrap();
        let folder = parent.join("db");
        let file = folder.join(stage);
        let what = file.display().to_string();
        let reached = eventually(DEADLINE, &what, async || file.exists());
        tokio::select! {
            db = start(options(&folder, Installation::Embedded)) => panic!("started before {stage:?} was seen: {db:?}"),
            () = reached => {}
        }
        // It is empty.
        fs::remove_dir(&parent).unwrap();
    }
}

#[tokio::test]
async fn two_run_side_by_side() {
    let place = place();
    let (one, two) = tokio::join!(
        start(options(place.path().join("one"), Installation::Embedded)),
        start(options(place.path().join("two"), Installation::Embedded))
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.password().expose_secret(), two.password().expose_secret());
    assert!(sign_in(&one, "azuresu", Some(two.password().expose_secret())).await.is_err());
    superuser(&one).await;
    superuser(&two).await;
    tokio::join!(one.stop(), two.stop());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_exists_is_left_alone() {
    let place = place();
    let folder = place.path().join("db");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("precious"), "data").unwrap();
    let error = start(options(&folder, Installation::Embedded)).await.unwrap_err();
    assert!(matches!(error, StartError::Folder { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(folder.join("precious")).unwrap(), "data");
}

#[tokio::test]
async fn a_folder_without_parent_is_refused() {
    let place = place();
    let error = start(options(place.path().join("no/db"), Installation::Embedded)).await.unwrap_err();
    let StartError::Folder { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("No such file"), "{source}");
}

/// PostgreSQL itself would run `touch`.
#[tokio::test]
async fn a_folder_that_a_shell_would_read_is_refused() {
    let place = place();
    for name in ["$(touch x)", "`touch x`", "a\"b", "a\\b", "a\nb"] {
        let error = start(options(place.path().join(name), Installation::Embedded)).await.unwrap_err();
        assert!(matches!(error, StartError::Folder { .. }), "{error:?}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_refused() {
    let place = place();
    let error = start(options(place.path().join("x".repeat(90)), Installation::Embedded)).await.unwrap_err();
    assert!(matches!(error, StartError::PathTooLong { .. }), "{error:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

    // the longest that fits does work
    let longest = 107 - "/socket/.s.PGSQL.5432".len() - place.path().as_os_str().len() - 1;
    let db = start(options(place.path().join("x".repeat(longest)), Installation::Embedded)).await.unwrap();
    superuser(&db).await;
    db.stop().await;
}

/// As root, below a folder that only root can enter: no other user could work there.
#[tokio::test]
async fn below_a_private_folder_only_the_embedded_one_runs_as_root() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root");
    }
    let place = place();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let folder = place.path().join("db");
    let db = start(options(&folder, Installation::Embedded)).await.unwrap();
    superuser(&db).await;
    assert_eq!(fs::metadata(db.socket_dir()).unwrap().uid(), 0);
    db.stop().await;
    let Some(installed) = installed() else { return };
    let error = start(options(&folder, Installation::Installed(installed))).await.unwrap_err();
    assert!(matches!(error, StartError::Unreachable { .. }), "{error:?}");
    assert!(!folder.exists());
}

/// Waits until the server accepts a session again.
async fn recovered(db: &LocalDb) -> Client {
    let again = async || sign_in(db, db.superuser(), Some(db.password().expose_secret())).await;
    eventually(DEADLINE, "the server has recovered from the crash", again).await
}

/// One server process is killed, which has PostgreSQL end all of them and recover.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_crash_of_a_server_process() {
    let place = place();
    let db = start(options(place.path().join("db"), Installation::Embedded)).await.unwrap();
    let client = superuser(&db).await;
    client.batch_execute("CREATE TABLE kept (n int, how text)").await.unwrap();
    for (round, statements) in [
        (1, &["INSERT INTO kept VALUES (1, 'a statement')"][..]),
        (2, &["BEGIN", "INSERT INTO kept VALUES (2, 'a transaction')", "COMMIT"]),
        (
            3,
            &[
                "CREATE ROLE kept_role",
                "GRANT SELECT ON kept TO kept_role",
                "INSERT INTO kept VALUES (3, 'a role')",
            ],
        ),
        (4, &["CREATE DATABASE kept_database", "INSERT INTO kept VALUES (4, 'a database')"]),
        (
            5,
            &[
                "DELETE FROM kept WHERE n = 1",
                "UPDATE kept SET n = 6 WHERE n = 2",
                "INSERT INTO kept VALUES (5, 'changes')",
            ],
        ),
    ] {
        let (client, victim) = (recovered(&db).await, superuser(&db).await);
        let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        for statement in statements {
            client.batch_execute(statement).await.unwrap();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // The old sessions end before new ones are let in.
        let ended = async || client.simple_query("SELECT 1").await.is_err();
        eventually(DEADLINE, "the crash of a process ends the others", ended).await;
        let client = recovered(&db).await;
        let last: i64 =
            client.query_one("SELECT count(*) FROM kept WHERE n = $1", &[&round]).await.unwrap().get(0);
        assert_eq!(last, 1, "{statements:?}");
    }
    let client = recovered(&db).await;
    let row = client
        .query_one(
            "SELECT (SELECT string_agg(n::text, ',' ORDER BY n) FROM kept), has_table_privilege('kept_role', 'kept', 'SELECT'),
                    (SELECT count(*) FROM pg_database WHERE datname = 'kept_database')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), ("3,4,5,6", true, 1_i64));
    db.stop().await;
}
