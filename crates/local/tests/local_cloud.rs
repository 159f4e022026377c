//! A local cloud from its start to its end.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_local::control::{self, Control, FaultChange};
use pgentra_local::faults::{KnownEndpoint, KnownFault};
use pgentra_local::{Flavour, Host, LocalCloud, Status};
use pgentra_system::{Env, System};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_program_on_each_host_signs_in_as_its_role() {
    for flavour in [Flavour::Flexible, Flavour::Single] {
        let mut cloud = LocalCloud::builder().flavour(flavour).start().await.unwrap();
        cloud.create_roles().await.unwrap();
        for host in Host::ALL.into_iter().filter(|host| *host != Host::AzureArc) {
            let session = cloud.connector(host, &[]).unwrap().connect().await.unwrap();
            let row = session.client().query_one("SELECT current_user::text", &[]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), cloud.environment(host)["PGUSER"], "{flavour}: {host}");
        }
        cloud.stop().await;
    }
}

#[tokio::test]
async fn tokens_follow_the_clock_of_the_cloud() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    let (credential, resource) = cloud.credential(Host::Vm).unwrap();
    let first = credential.token(&resource).await.unwrap();
    let now = cloud.clock().advance(2 * DAY);
    assert_eq!(now.duration_since(cloud.clock().now()).unwrap_or_default(), Duration::ZERO);
    let second = credential.token(&resource).await.unwrap();
    assert!(second.expires_on() > first.expires_on() + DAY);
    assert_ne!(first.expose_secret(), second.expose_secret());
    cloud.stop().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_cloud() {
    let base = tempfile::tempdir().unwrap();
    for is_stopped in [true, false] {
        let folder = base.path().join("cloud");
        let mut cloud = LocalCloud::builder().folder(&folder).start().await.unwrap();
        let address = cloud.postgres_addr();
        cloud.restart_gateway().await.unwrap();
        assert_eq!(cloud.postgres_addr(), address);
        TcpStream::connect(address).await.unwrap();
        if is_stopped {
            cloud.stop().await;
        } else {
            drop(cloud);
        }
        let gone = async || TcpStream::connect(address).await.is_err() && !folder.exists();
        eventually(DEADLINE, "no listener and no folder", gone).await;
    }
}

#[tokio::test]
async fn a_running_cloud_is_found_and_asked() {
    let base = tempfile::tempdir().unwrap();
    let env = Env::from_map([("TMPDIR", base.path().to_str().unwrap())]);
    let system = System::builder().env(env.clone()).build();
    let cloud = LocalCloud::builder().system(&system).name("asked").start().await.unwrap();
    assert!(control::list(&env).await.is_empty(), "it has no control socket yet");
    let (status, stop) = (Status::of(&cloud), CancellationToken::new());
    let control = Control::bind(cloud.folder()).unwrap();
    let asked = async {
        let found = control::list(&env).await;
        assert_eq!(
            found.iter().map(|found| (&*found.name, found.server.port)).collect::<Vec<_>>(),
            [("asked", cloud.postgres_addr().port())]
        );
        let before = cloud.clock().now();
        assert!(control::advance(cloud.folder(), DAY).await.unwrap().is_some());
        assert!(cloud.clock().now() >= before + DAY);
        // It is answered when the cloud has ended.
        control::down(cloud.folder()).await.unwrap().is_some()
    };
    let served = async {
        drop(control.serve(&status, cloud.clock(), cloud.faults(), &cloud.snapshots(), &stop).await)
    };
    let (was_there, ()) = tokio::join!(asked, served);
    assert!(was_there);
    let folder = cloud.folder().to_owned();
    cloud.stop().await;
    assert!(control::status(&folder).await.unwrap().is_none());
}

#[tokio::test]
async fn a_cloud_answers_while_its_postgresql_does_not() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    let (status, stop) = (Status::of(&cloud), CancellationToken::new());
    let control = Control::bind(cloud.folder()).unwrap();
    let superuser = cloud.superuser("postgres").await.unwrap();
    let folder = superuser.query_one("SHOW data_directory", &[]).await.unwrap().get::<_, String>(0);
    let file = Path::new(&folder).join("postmaster.pid");
    let pid = std::fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
    let postmaster = Pid::from_raw(pid).unwrap();
    kill_process(postmaster, Signal::STOP).unwrap();
    let _silent = UnixStream::connect(cloud.folder().join("control.sock")).await.unwrap();
    let (fault, at) =
        (KnownFault::named("connection-limit").unwrap(), KnownEndpoint::named("postgresql").unwrap());
    let change = |change| control::change_faults(cloud.folder(), change);
    let asked = async {
        let mut set = pin!(change(FaultChange::Set { fault, at, times: None }));
        tokio::select! {
            biased;
            set = &mut set => panic!("{set:?}"),
            status = control::status(cloud.folder()) => assert!(status.unwrap().is_some()),
        }
        let refused = set.await.unwrap_err().to_string();
        assert!(refused.contains("PostgreSQL did not answer within 8 s"), "{refused}");
        assert!(change(FaultChange::None).await.unwrap().unwrap().active.is_empty());

        // A change that is in progress does not delay the end.
        let set = change(FaultChange::Set { fault, at, times: None });
        let (set, down) = tokio::join!(set, control::down(cloud.folder()));
        assert!(down.unwrap().is_some());
        let ended = set.unwrap_err().to_string();
        assert_eq!(ended, "the local cloud ended before it answered");
    };
    let served = async {
        drop(control.serve(&status, cloud.clock(), cloud.faults(), &cloud.snapshots(), &stop).await)
    };
    tokio::join!(asked, served);
    kill_process(postmaster, Signal::CONT).unwrap();
    cloud.stop().await;
}
