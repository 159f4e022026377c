//! The state of a local cloud in a file: kept over stops, saved while it runs, and refused where it cannot be used.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test; a skipped test says so"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_local::control::{self, Control};
use pgentra_local::{Error, Failure, FailureKind, Flavour, Host, LocalCloud, LocalCloudBuilder, Status};
use pgentra_system::{Env, System};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// A folder for clouds and their files, which every user can enter.
struct Place {
    base: tempfile::TempDir,
    system: System,
}

impl Place {
    fn new() -> Self {
        let base = tempfile::Builder::new().prefix("pgentra-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let env = Env::from_map([("TMPDIR", base.path().to_str().unwrap())]);
        let system = System::builder().env(env).build();
        Self { base, system }
    }

    /// With a folder for what is kept.
    fn with_home() -> Self {
        let Self { base, .. } = Self::new();
        let env = Env::from_map([
            ("TMPDIR", base.path().to_str().unwrap().to_owned()),
            ("XDG_STATE_HOME", base.path().join("kept").to_str().unwrap().to_owned()),
        ]);
        let system = System::builder().env(env).build();
        Self { base, system }
    }

    fn file(&self) -> PathBuf {
        self.base.path().join("my.state")
    }

    fn cloud(&self, name: &str) -> LocalCloudBuilder<'static> {
        LocalCloud::builder().system(&self.system).name(name)
    }

    fn kept(&self) -> LocalCloudBuilder<'static> {
        self.cloud("one").state(Some(self.file()))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.base.path()).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

async fn query(cloud: &LocalCloud, host: Host, sql: &str) -> String {
    let session = cloud.connector(host, &[]).unwrap().connect().await.unwrap();
    session.client().query_one(sql, &[]).await.unwrap().get(0)
}

fn failure(refused: Result<LocalCloud, Error>) -> Failure {
    match refused {
        Err(Error::Failed(failure)) => failure,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
}

/// The message with its causes.
fn chain(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs statements as the administrator.
async fn run(cloud: &LocalCloud, sql: &str) {
    let session = cloud.connector(Host::Admin, &[]).unwrap().connect().await.unwrap();
    session.client().batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn a_cloud_goes_on_where_it_stopped() {
    for flavour in [Flavour::Flexible, Flavour::Single] {
        let place = Place::new();
        let mut cloud = place.kept().flavour(flavour).start().await.unwrap();
        cloud.create_roles().await.unwrap();
        assert_eq!(cloud.state_file(), Some(&*place.file()));
        run(&cloud, "CREATE TABLE kept AS SELECT 7 AS n").await;
        let group = cloud.azure().new_group("developers");
        let user = cloud.azure().new_user("Ada Lovelace");
        cloud.azure().join_group(user.object_id(), group.object_id());
        cloud.clock().advance(Duration::from_secs(25 * 3600));
        let (tenant, principals) = (cloud.azure().tenant(), cloud.azure().principals());
        let certificate = fs::read_to_string(cloud.files().client_certificate).unwrap();
        cloud.stop_and_save().await.unwrap();
        assert_eq!(place.names(), ["my.state"]);
        for turn in 0..2 {
            let mut cloud = place.kept().start().await.unwrap();
            cloud.create_roles().await.unwrap();
            assert_eq!((cloud.flavour(), cloud.azure().tenant()), (flavour, tenant));
            assert_eq!(cloud.azure().principals(), principals);
            assert_eq!(cloud.azure().memberships().len(), 2);
            assert!(cloud.azure().clock().ahead() >= Duration::from_secs(25 * 3600));
            assert_eq!(fs::read_to_string(cloud.files().client_certificate).unwrap(), certificate);
            assert_eq!(query(&cloud, Host::Admin, "SELECT n::text FROM kept").await, "7", "{turn}");
            for host in Host::ALL.into_iter().filter(|host| *host != Host::AzureArc) {
                let user = query(&cloud, host, "SELECT current_user::text").await;
                assert_eq!(user, cloud.environment(host)["PGUSER"], "{flavour}: {host}");
            }
            cloud.stop_and_save().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_stop_without_saving_and_a_drop_keep_the_file() {
    let place = Place::new();
    place.kept().start().await.unwrap().stop().await;
    assert!(place.names().is_empty(), "nothing was saved: {:?}", place.names());
    place.kept().start().await.unwrap().stop_and_save().await.unwrap();
    let before = fs::read(place.file()).unwrap();
    let cloud = place.kept().start().await.unwrap();
    cloud.azure().new_user("Ada Lovelace");
    let address = cloud.postgres_addr();
    drop(cloud);
    let gone = async || TcpStream::connect(address).await.is_err() && place.names() == ["my.state"];
    eventually(DEADLINE, "no listener and no folder", gone).await;
    assert!(fs::read(place.file()).unwrap() == before);
}

#[tokio::test]
async fn one_file_has_one_cloud_and_a_snapshot_has_several() {
    let place = Place::new();
    let cloud = place.kept().start().await.unwrap();
    let refused = failure(place.cloud("two").state(Some(place.file())).start().await);
    assert!(refused.to_string().starts_with("another local cloud uses the state in"), "{refused}");
    assert!(refused.hint().unwrap().contains("--snapshot"), "{refused:?}");
    let refused = failure(place.cloud("two").snapshot(Some(place.file())).start().await);
    assert!(refused.to_string().starts_with("there is no file"), "{refused}");
    run(&cloud, "CREATE TABLE kept AS SELECT 7 AS n").await;
    let tenant = cloud.azure().tenant();
    cloud.stop_and_save().await.unwrap();
    let before = fs::read(place.file()).unwrap();

    let begin = |name| place.cloud(name).snapshot(Some(place.file())).start();
    let (one, two) = tokio::join!(begin("one"), begin("two"));
    for cloud in [one.unwrap(), two.unwrap()] {
        assert_eq!(cloud.azure().tenant(), tenant);
        run(&cloud, "DELETE FROM kept").await;
        cloud.stop_and_save().await.unwrap();
    }
    assert!(fs::read(place.file()).unwrap() == before, "a snapshot is not changed");
    assert_eq!(place.names(), ["my.state"]);
}

#[tokio::test]
async fn a_snapshot_is_made_of_a_cloud_that_runs() {
    let place = Place::new();
    let cloud = place.kept().start().await.unwrap();
    let (status, stop) = (Status::of(&cloud), CancellationToken::new());
    assert_eq!(status.state, Some(place.file()));
    let control = Control::bind(cloud.folder()).unwrap();
    let file = place.base.path().join("a snapshot");
    let asked = async {
        run(&cloud, "CREATE TABLE kept AS SELECT 7 AS n").await;
        cloud.azure().new_user("Ada Lovelace");
        let save =
            async |file: &Path, is_replaced| control::snapshot(cloud.folder(), file, is_replaced).await;
        let size = save(&file, false).await.unwrap().unwrap();
        assert_eq!(size, fs::metadata(&file).unwrap().len());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = save(&file, false).await.unwrap_err();
        assert!(refused.to_string().ends_with("is there already"), "{refused}");
        assert!(refused.hint().unwrap().contains("--replace"), "{refused:?}");
        save(&file, true).await.unwrap();
        let refused = save(&place.file(), true).await.unwrap_err();
        assert!(refused.to_string().starts_with("another local cloud uses the state"), "{refused}");
        let refused = save(&place.base.path().join("none/file"), false).await.unwrap_err();
        assert!(refused.to_string().contains("No such file"), "{refused}");
        assert!(save(Path::new("a\nb"), false).await.is_err());
        run(&cloud, "DROP TABLE kept").await;
        stop.cancel();
    };
    let snapshots = cloud.snapshots();
    let served =
        async { drop(control.serve(&status, cloud.clock(), cloud.faults(), &snapshots, &stop).await) };
    tokio::join!(asked, served);
    drop(snapshots);
    cloud.stop().await;
    assert_eq!(place.names(), ["a snapshot"]);
    let cloud = place.cloud("again").snapshot(Some(file)).start().await.unwrap();
    assert_eq!(query(&cloud, Host::Admin, "SELECT n::text FROM kept").await, "7");
    assert_eq!(cloud.azure().users().len(), 2);
    cloud.stop().await;
}

#[tokio::test]
async fn what_does_not_suit_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let nightly = async || {
        place.kept().flavour(Flavour::Single).seed(Some("nightly".to_owned())).start().await.unwrap()
    };
    nightly().await.stop_and_save().await.unwrap();
    let whole = fs::read(place.file()).unwrap();
    // The same options again are no contradiction.
    nightly().await.stop().await;

    let check = async |cloud: LocalCloudBuilder<'static>, message: &str, hint: &str| {
        let refused = failure(cloud.start().await);
        let said = chain(&refused);
        assert!(said.contains(message), "{said}");
        assert!(refused.hint().unwrap().contains(hint), "{refused:?}");
        assert_eq!(place.names(), ["my.state"], "{said}");
    };
    check(place.kept().flavour(Flavour::Flexible), "has the flavour single", "leave out --flavour").await;
    check(place.kept().seed(Some("other".to_owned())), "are not those of this seed", "leave out --seed")
        .await;

    // Cut off and changed: at the beginning, where its files begin, and at the end.
    let write = |bytes: &[u8]| fs::write(place.file(), bytes).unwrap();
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        write(&whole[..length]);
        check(place.kept(), "damaged", "give another file").await;
        assert_eq!(fs::read(place.file()).unwrap().len(), length, "it is left as it is");
    }
    // One bit may change nothing: in a row of zeros another distance leads to the same bytes.
    for (begin, length) in [(whole.len() / 2, 64), (whole.len() - 8, 1)] {
        let mut changed = whole.clone();
        changed[begin..begin + length].iter_mut().for_each(|byte| *byte ^= 0x55);
        write(&changed);
        check(place.kept(), "damaged", "give another file").await;
    }
    write(b"PK\x03\x04");
    check(place.kept(), "damaged or not the state of a local cloud", "give another file").await;

    write(&whole);
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).unwrap();
    check(place.kept(), "may be read by other users", "chmod 600").await;
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
    place.kept().start().await.unwrap().stop().await;
}

#[tokio::test]
async fn another_version_of_postgresql_is_refused() {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut installed = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let other = installed.find(|folder| folder.join("bin/initdb").exists() && !folder.ends_with("17"));
    let Some(other) = other else {
        return println!("skipped: no PostgreSQL but 17 below /usr/lib/postgresql");
    };
    let place = Place::new();
    place.kept().start().await.unwrap().stop_and_save().await.unwrap();
    let refused = failure(place.kept().postgres(Some(other.clone())).start().await);
    let said = chain(&refused);
    let major = other.file_name().unwrap().to_str().unwrap();
    assert!(said.contains("the data is of PostgreSQL 17."), "{said}");
    assert!(said.contains(&format!("and the server is PostgreSQL {major}.")), "{said}");
    assert!(refused.hint().unwrap().contains("take a PostgreSQL 17"), "{refused:?}");
    assert_eq!(place.names(), ["my.state"]);
    // It keeps a state of its own.
    let installed =
        || place.cloud("two").state(Some(place.base.path().join("other"))).postgres(Some(other.clone()));
    installed().start().await.unwrap().stop_and_save().await.unwrap();
    installed().start().await.unwrap().stop_and_save().await.unwrap();
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_kept_elsewhere() {
    let place = Place::with_home();
    let folder = place.base.path().join("gone");
    for number in ["one.pgentra", "one-2.pgentra"] {
        fs::create_dir(&folder).unwrap();
        let cloud = place.cloud("one").state(Some(folder.join("my.state"))).start().await.unwrap();
        run(&cloud, "CREATE TABLE kept AS SELECT 7 AS n").await;
        fs::remove_dir_all(&folder).unwrap();
        let failed = cloud.stop_and_save().await.unwrap_err();
        assert!(failed.to_string().contains("cannot write"), "{failed}");
        let file = place.base.path().join("kept/pgentra/local").join(number);
        let hint = failed.hint().unwrap();
        assert!(hint.ends_with(&format!("pgentra local up --state {}", file.display())), "{hint}");
        let cloud = place.cloud("two").state(Some(file)).start().await.unwrap();
        assert_eq!(query(&cloud, Host::Admin, "SELECT n::text FROM kept").await, "7");
        cloud.stop_and_save().await.unwrap();
        assert_eq!(place.names(), ["kept"]);
    }

    // Without such a folder, PostgreSQL's files are kept.
    let place = Place::new();
    let folder = place.base.path().join("gone");
    fs::create_dir(&folder).unwrap();
    let cloud = place.cloud("one").state(Some(folder.join("my.state"))).start().await.unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let failed = cloud.stop_and_save().await.unwrap_err();
    let [kept] = &place.names()[..] else { panic!("{:?}", place.names()) };
    let kept = place.base.path().join(kept);
    assert!(failed.hint().unwrap().contains(kept.to_str().unwrap()), "{failed:?}");
    assert!(kept.join("data/PG_VERSION").is_file());
}

#[tokio::test]
async fn a_cloud_whose_postgresql_crashed_is_saved() {
    let place = Place::new();
    let mut cloud = place.kept().start().await.unwrap();
    let superuser = cloud.superuser("postgres").await.unwrap();
    run(&cloud, "CREATE TABLE kept AS SELECT 7 AS n").await;
    let folder = superuser.query_one("SHOW data_directory", &[]).await.unwrap().get::<_, String>(0);
    let lock = fs::read_to_string(Path::new(&folder).join("postmaster.pid")).unwrap();
    let postmaster = Pid::from_raw(lock.lines().next().unwrap().parse().unwrap()).unwrap();
    kill_process(postmaster, Signal::KILL).unwrap();
    let how = cloud.died().await;
    assert!(how.contains("SIGKILL"), "{how}");
    cloud.stop_and_save().await.unwrap();
    let cloud = place.kept().start().await.unwrap();
    assert_eq!(query(&cloud, Host::Admin, "SELECT n::text FROM kept").await, "7");
    cloud.stop().await;
}

#[tokio::test]
async fn only_a_word_says_that_a_state_was_saved() {
    let place = Place::new();
    let cloud = place.kept().start().await.unwrap();
    let (status, stop) = (Status::of(&cloud), CancellationToken::new());
    for is_told in [false, true] {
        let control = Control::bind(cloud.folder()).unwrap();
        let snapshots = cloud.snapshots();
        let served = async {
            let mut control = control.serve(&status, cloud.clock(), cloud.faults(), &snapshots, &stop).await;
            if is_told {
                control.ended(&Ok(())).await;
            }
        };
        let (down, ()) = tokio::join!(control::down(cloud.folder()), served);
        match down {
            Ok(saved) => assert!(is_told && saved == Some(Some(place.file()))),
            Err(failure) => {
                assert!(!is_told, "{failure}");
                assert_eq!(failure.to_string(), "the local cloud ended before it had saved its state");
                assert_eq!(failure.kind(), FailureKind::Machine);
            }
        }
        fs::remove_file(cloud.folder().join("control.sock")).unwrap();
    }
    cloud.stop().await;
}

#[tokio::test]
async fn hints_of_a_snapshot_are_those_of_its_option() {
    let place = Place::new();
    fs::write(place.file(), "x").unwrap();
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
    let refused = failure(place.cloud("two").snapshot(Some(place.file())).start().await);
    let hint = refused.hint().unwrap();
    assert!(hint.contains("without --snapshot") && !hint.contains("does not exist yet"), "{hint}");
}
