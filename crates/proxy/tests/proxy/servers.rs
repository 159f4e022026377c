//! Servers that change their role: which of them new sessions go to, and what becomes of the others.

use std::sync::Arc;
use std::time::Duration;

use eventually::{DEADLINE, eventually, holds};
use pgentra_proxy::{DemotedSessions, Options};
use pgentra_session::Limits;
use pgentra_wire::startup::{ProtocolVersion, StartupMessage};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::fixture::{ROLE, Raw, Running, Stage, one, run};
use crate::observe::Watched;

/// Long enough that nothing is asked by the clock.
const NEVER: Duration = Duration::from_secs(3600);
const OFTEN: Duration = Duration::from_millis(200);

/// Makes new transactions of the server read only, or not.
async fn freeze(superuser: &Client, is_frozen: bool) {
    let value = if is_frozen { "on" } else { "off" };
    superuser
        .simple_query(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"))
        .await
        .unwrap();
    superuser.simple_query("SELECT pg_reload_conf()").await.unwrap();
}

/// The SQLSTATE with which the server ends the session.
async fn ended(mut session: Raw<tokio::net::TcpStream>) -> String {
    let error = tokio::time::timeout(DEADLINE, session.error()).await.expect("the session is ended");
    assert!(error.hint().is_some_and(|hint| hint.contains("Connect again")), "{error}");
    error.sqlstate().into_owned()
}

async fn raw(running: &Running, application: &str) -> Raw<tokio::net::TcpStream> {
    let mut client = Raw::new(running.dial().await);
    let start = StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap();
    let start = start.with("database", "postgres").unwrap().with("application_name", application).unwrap();
    client.start(&start).await;
    client.until_ready().await;
    client
}

#[test]
fn sessions_with_a_demoted_server_end_by_choice() {
    run(async {
        let stage = Stage::new().await;
        let superuser = stage.superuser().await;
        let proxy = async |demoted_sessions, interval| {
            let connector = stage.connector("target_session_attrs=read-write");
            let options = Options {
                server_role_interval: interval,
                demoted_sessions,
                warm: 1,
                reuse: true,
                ..Options::default()
            };
            Running::with(connector, options).await
        };
        let keep = proxy(DemotedSessions::Keep, OFTEN).await;
        let close = proxy(DemotedSessions::Close, OFTEN).await;
        let kept = keep.named("kept").await;
        let idle = raw(&close, "idle").await;
        let mut in_transaction = raw(&close, "in a transaction").await;
        in_transaction.query("BEGIN").await;
        in_transaction.tags_until_ready().await;
        let mut reading = raw(&close, "reads").await;
        // More than the buffers between the two hold.
        reading.query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)").await;
        reading.stream.readable().await.unwrap();
        for running in [&keep, &close] {
            running.until_supply(|supply| supply.ready > 0).await;
        }

        freeze(&superuser, true).await;
        assert_eq!(ended(idle).await, "57P01");
        assert_eq!(ended(in_transaction).await, "57P01");
        let rest = tokio::time::timeout(DEADLINE, reading.tags_until_ready()).await;
        let rows = rest.expect("the rest of the answer").iter().filter(|tag| **tag == b'D').count();
        assert_eq!(rows, 100_000);
        assert_eq!(ended(reading).await, "57P01");
        assert_eq!(one(&kept, "SHOW default_transaction_read_only").await, "on");
        for running in [&keep, &close] {
            running.until_supply(|supply| supply.ready == 0).await;
            let error = running.refusal(ROLE, "postgres").await;
            assert_eq!(error.code().code(), "08001");
            assert!(error.message().contains("a primary that only reads"), "{error}");
        }
        drop(kept);

        freeze(&superuser, false).await;
        let writes = async || close.connect(ROLE, "postgres").await.ok();
        let client = eventually(DEADLINE, "new sessions write again", writes).await;
        assert_eq!(one(&client, "SHOW default_transaction_read_only").await, "off");
    });
}

/// The session that asks is one for each server, and with no client there is none.
#[test]
fn a_server_is_asked_over_one_session_from_the_first_client_on() {
    run(async {
        let stage = Stage::new().await;
        let superuser = stage.superuser().await;
        let asking = async || stage.processes(&superuser, "pgentra proxy: server role").await.len();
        let connector = stage.connector("target_session_attrs=primary");
        let options = Options { server_role_interval: OFTEN, ..Options::default() };
        let running = Running::with(connector, options).await;
        assert_eq!(asking().await, 0);
        let client = running.connect(ROLE, "postgres").await.unwrap();
        eventually(DEADLINE, "the server is asked", async || holds(asking().await, |number| *number == 1))
            .await;
        let of_asking = async |column: &str| {
            let from = "FROM pg_stat_activity WHERE application_name = 'pgentra proxy: server role'";
            one(&superuser, &format!("SELECT coalesce({column}::text, '') {from}")).await
        };
        let (process, before) = (of_asking("pid").await, of_asking("query_start").await);
        let again = async || holds(of_asking("query_start").await, |now| *now != before);
        eventually(DEADLINE, "the server is asked again", again).await;
        assert_eq!(of_asking("pid").await, process, "over the same session");
        drop(client);
        let Running { shutdown, served, proxy, .. } = running;
        shutdown.cancel();
        served.await.unwrap();
        drop(proxy);
        eventually(DEADLINE, "nothing is asked any more", async || asking().await == 0).await;
    });
}

/// Where every server is right nothing is asked, and nothing where it is turned off.
#[test]
fn a_server_of_any_kind_is_not_asked() {
    run(async {
        let stage = Stage::new().await;
        let superuser = stage.superuser().await;
        let options = Options { server_role_interval: OFTEN, ..Options::default() };
        let any = Running::with(stage.connector(""), options).await;
        let options = Options { server_role_interval: Duration::ZERO, ..Options::default() };
        let never = Running::with(stage.connector("target_session_attrs=primary"), options).await;
        for running in [any, never] {
            let client = running.connect(ROLE, "postgres").await.unwrap();
            assert_eq!(one(&client, "SELECT 'there'").await, "there");
            let asking =
                "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'pgentra proxy%'";
            assert_eq!(one(&superuser, asking).await, "0");
        }
    });
}

#[test]
fn the_servers_are_shown() {
    run(async {
        let stage = Stage::shared().await;
        // No server listens at the second port.
        let ports = format!("{},1", stage.port());
        let connector = stage.connector_to_each(&ports, "target_session_attrs=primary");
        let watched = Watched::new(connector, Limits::default()).await;
        let servers = async || {
            let status = watched.status().await;
            let servers = status["targets"][0]["servers"].as_array().unwrap().clone();
            let shown = |server: &Value| {
                (server["role"].as_str().unwrap().to_owned(), server["selected"].as_bool().unwrap())
            };
            servers.iter().map(shown).collect::<Vec<_>>()
        };
        let unknown = ("unknown".to_owned(), false);
        assert_eq!(servers().await, [unknown.clone(), unknown]);
        let client = watched.running.connect(ROLE, "postgres").await.unwrap();
        let expected = [("primary".to_owned(), true), ("unreachable".to_owned(), false)];
        let told = async || holds(servers().await, |servers| *servers == expected);
        eventually(DEADLINE, "both servers were asked", told).await;
        for (metric, values) in [("server_up", [1.0, 0.0]), ("server_selected", [1.0, 0.0])] {
            for (port, value) in [stage.port(), 1].into_iter().zip(values) {
                let series =
                    format!("pgentra_proxy_{metric}{{target=\"my-target\",server=\"localhost:{port}\"}}");
                assert_eq!(watched.metric(&series).await, Some(value), "{series}");
            }
        }
        drop(client);
    });
}

/// The primary ends as in a crash. The standby is found when it is promoted, although nothing is asked by the clock: the
/// failure of a session has it asked.
#[test]
fn a_promoted_standby_gets_the_new_sessions() {
    run(async {
        let mut stage = Stage::new().await;
        let standby = stage.start_standby().await;
        let ports = format!("{},{}", stage.port(), standby.port());
        let options = || Options { server_role_interval: NEVER, reuse: true, ..Options::default() };
        let to = |attrs: &str| stage.connector_to_each(&ports, &format!("target_session_attrs={attrs}"));
        let writing = Running::with(to("read-write"), options()).await;
        let reading = Running::of(Arc::new(writing.proxy.reading())).await;
        let is_standby = async |running: &Running| -> Option<bool> {
            let mut config = tokio_postgres::Config::new();
            config.user(ROLE).dbname("postgres");
            let (client, connection) = config.connect_raw(running.dial().await, NoTls).await.ok()?;
            tokio::spawn(connection);
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok()?;
            Some(row.get(0))
        };
        for _ in 0..2 {
            assert_eq!(is_standby(&writing).await, Some(false));
            assert_eq!(is_standby(&reading).await, Some(true));
        }
        stage.crash().await;
        assert_eq!(is_standby(&reading).await, Some(true));
        assert_eq!(is_standby(&writing).await, None);
        standby.promote().await.unwrap();
        let promoted = async |running: &Running| holds(is_standby(running).await, |is| *is == Some(false));
        eventually(DEADLINE, "new sessions write", async || promoted(&writing).await).await;
        eventually(DEADLINE, "readers get the server that is left", async || promoted(&reading).await).await;
        standby.stop().await;
    });
}
