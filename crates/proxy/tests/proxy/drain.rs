//! Shutdown and drain.

use std::time::Duration;

use pgentra_proxy::Drain;
use pgentra_proxy::{Naming, Options};
use pgentra_session::Limits;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::fixture::{ROLE, Raw, Running, Stage, one, run, until_unreachable};

#[test]
fn a_session_may_end_by_itself() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let client = running.connect(ROLE, "postgres").await.unwrap();
        running.shutdown.cancel();
        // The listener goes first, the session stays.
        until_unreachable(running.address).await;
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        drop(client);
        running.served.await.unwrap();
    });
}

/// A client, and the result of its connection.
async fn connect(
    running: &Running,
    application: &str,
) -> (Client, JoinHandle<Result<(), tokio_postgres::Error>>) {
    let mut config = tokio_postgres::Config::new();
    config.user(ROLE).dbname("postgres").application_name(application);
    let (client, connection) = config.connect_raw(running.dial().await, NoTls).await.unwrap();
    (client, tokio::spawn(connection))
}

fn sqlstate(ended: Result<(), tokio_postgres::Error>) -> String {
    ended.unwrap_err().code().unwrap().code().to_owned()
}

async fn draining(drain: Drain, limit: Duration) -> Running {
    let stage = Stage::shared().await;
    let limits = Limits { drain: limit, ..Limits::default() };
    Running::with(stage.connector(""), Options { drain, limits, ..Options::default() }).await
}

const NEVER: Duration = Duration::from_secs(86_400);

#[test]
fn what_does_not_end_is_told() {
    run(async {
        for drain in [Drain::Session, Drain::Transaction] {
            let running = draining(drain, Duration::from_millis(1)).await;
            let name = format!("told at the deadline {drain:?}");
            let (idle, idle_ended) = connect(&running, "").await;
            let (busy, busy_ended) = connect(&running, &name).await;
            let query = tokio::spawn(async move { busy.query("SELECT pg_sleep(600)", &[]).await });
            let stage = Stage::shared().await;
            stage.sleeping(&stage.superuser().await, &name).await;
            running.shutdown.cancel();
            running.served.await.unwrap();
            assert_eq!(sqlstate(idle_ended.await.unwrap()), "57P01");
            assert!(idle.is_closed());
            // The error replaces the answer.
            assert_eq!(query.await.unwrap().unwrap_err().code().unwrap().code(), "57P01");
            let _ = busy_ended.await.unwrap();
        }
    });
}

#[test]
fn a_session_at_rest_ends_at_once_and_a_transaction_ends_first() {
    run(async {
        let running = draining(Drain::Transaction, NEVER).await;
        let (idle, idle_ended) = connect(&running, "").await;
        idle.simple_query("SELECT 1").await.unwrap();
        let (client, ended) = connect(&running, "").await;
        client.batch_execute("BEGIN; CREATE TEMPORARY TABLE t (n int)").await.unwrap();
        running.shutdown.cancel();
        assert_eq!(sqlstate(idle_ended.await.unwrap()), "57P01");
        client.execute("INSERT INTO t SELECT generate_series(1, 1000)", &[]).await.unwrap();
        assert_eq!(one(&client, "SELECT count(*)::text FROM t").await, "1000");
        assert!(!running.served.is_finished());
        // The answer arrives before the session ends.
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(sqlstate(ended.await.unwrap()), "57P01");
        running.served.await.unwrap();
    });
}

#[test]
fn the_server_hears_the_end_of_a_session_at_rest() {
    run(async {
        let stage = Stage::shared().await;
        let running = draining(Drain::Transaction, NEVER).await;
        let (client, ended) = connect(&running, "hears its end").await;
        client.simple_query("SELECT 1").await.unwrap();
        running.shutdown.cancel();
        assert_eq!(sqlstate(ended.await.unwrap()), "57P01");
        running.served.await.unwrap();
        let superuser = stage.superuser().await;
        stage.until_processes(&superuser, "hears its end", 0).await;
    });
}

#[test]
fn whoever_is_still_signing_in_is_told() {
    run(async {
        let stage = Stage::shared().await;
        // A server that never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let connector = stage.connector_to(port, "", stage.azure.certificates().pem());
        let running = Running::new(connector, Naming::Same, Limits::default()).await;
        let mut raw = Raw::new(running.dial().await);
        let start =
            pgentra_wire::startup::StartupMessage::new(pgentra_wire::startup::ProtocolVersion::V3_0, ROLE);
        raw.start(&start.unwrap()).await;
        let _asked = silent.accept().await.unwrap();
        running.shutdown.cancel();
        assert_eq!(raw.error().await.sqlstate(), "57P03");
        running.served.await.unwrap();
    });
}
