//! A primary crashes under `pgbench`, its standby is promoted, and the auth proxy leads new sessions to it.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, whose helpers stand outside of test functions, and which tells what it measured"
)]

mod pgbench;

use std::time::Duration;

use eventually::{DEADLINE, eventually, holds};
use pgbench::Load;
use pgentra_local::{Host, LocalCloud};
use pgentra_proxy_config::{Configuration, ReloadState, RunningProxy, Sources};
use pgentra_system::System;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

/// The database role of the virtual machine's identity.
const ROLE: &str = "myVm";
/// How often the proxy asks the servers what they are.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between the promotion and a new session that writes. A sign-in that begins after the interval is
/// done in some tenths of a second.
const FOUND: Duration = Duration::from_secs(5);

/// A proxy in front of these ports, and its own port.
async fn proxy(cloud: &LocalCloud, ports: [u16; 2]) -> (RunningProxy, u16) {
    let system: System = cloud.system(Host::Vm);
    let [one, two] = ports;
    let sources = Sources {
        targets: vec![format!(
            "host=localhost,localhost port={one},{two} dbname=postgres target_session_attrs=read-write \
             listen=127.0.0.1:0 demoted_sessions=close reuse=true server_role_interval={}",
            INTERVAL.as_secs()
        )],
        ..Sources::default()
    };
    let mut state = ReloadState::default();
    let mut running = RunningProxy::default();
    running.apply(Configuration::gather(&system, &sources, &mut state).unwrap(), &state).await.unwrap();
    let address = running.listeners().next().unwrap().address.to_owned();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    (running, port)
}

async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(ROLE).dbname("postgres").application_name("writer");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Writes over a session of its own.
async fn write(port: u16) -> Result<u64, tokio_postgres::Error> {
    let client = connect(port).await?;
    client.execute("INSERT INTO ledger VALUES ('writer', 0, 0) ON CONFLICT DO NOTHING", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_commit_is_lost_in_a_failover() {
    let mut cloud = LocalCloud::builder().start().await.unwrap();
    cloud.create_roles().await.unwrap();
    let superuser = cloud.superuser("postgres").await.unwrap();
    let ledger = "CREATE TABLE ledger (load text, client int, n int, PRIMARY KEY (load, client, n)); GRANT ALL ON ledger TO PUBLIC";
    superuser.batch_execute(ledger).await.unwrap();
    let standby = cloud.start_standby().await.unwrap();
    let (running, port) = proxy(&cloud, [cloud.postgres_addr().port(), standby.port()]).await;

    let folder = tempfile::tempdir().unwrap();
    let loads = [
        Load::start(folder.path(), "sessions", port, ROLE, &["--client=4"]),
        Load::start(folder.path(), "connections", port, ROLE, &["--client=2", "--connect"]),
    ];
    let rows = async |client: &Client, load: &str| -> i64 {
        let count = "SELECT count(*) FROM ledger WHERE load = $1";
        client.query_one(count, &[&load]).await.unwrap().get(0)
    };
    for load in &loads {
        let written = async || holds(rows(&superuser, load.name()).await, |rows| *rows >= 50);
        eventually(DEADLINE, "the load writes", written).await;
    }
    drop(superuser);

    let crashed = Instant::now();
    cloud.crash().await;
    standby.promote().await.unwrap();
    let promoted = Instant::now();
    eventually(DEADLINE, "a new session writes", async || write(port).await).await;
    let (since_promotion, since_crash) = (promoted.elapsed(), crashed.elapsed());

    let superuser = standby.superuser("postgres").await.unwrap();
    for load in &loads {
        let before = rows(&superuser, load.name()).await;
        let written = async || holds(rows(&superuser, load.name()).await, |rows| *rows >= before + 50);
        eventually(DEADLINE, "the load writes again", written).await;
    }
    for load in loads {
        let name = load.name().to_owned();
        let acknowledged = load.stop();
        let (clients, numbers): (Vec<i32>, Vec<i32>) = acknowledged.iter().copied().unzip();
        let missing = "SELECT client, n FROM unnest($2::int[], $3::int[]) AS told (client, n) \
                       WHERE NOT EXISTS (SELECT FROM ledger WHERE load = $1 AND client = told.client AND n = told.n)";
        let lost = superuser.query(missing, &[&name, &clients, &numbers]).await.unwrap();
        let lost: Vec<(i32, i32)> = lost.iter().map(|row| (row.get(0), row.get(1))).collect();
        println!("{name}: {} commits were acknowledged, {} of them are lost", acknowledged.len(), lost.len());
        assert!(acknowledged.len() >= 50 && lost.is_empty(), "{name}: {lost:?}");
    }
    println!(
        "a new session writes {since_promotion:?} after the promotion, {since_crash:?} after the crash of the primary"
    );
    assert!(since_promotion < FOUND, "{since_promotion:?}");
    running.stop().cancel();
    running.ended().await;
    standby.stop().await;
}
