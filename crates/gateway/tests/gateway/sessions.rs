//! Sessions from start to end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use eventually::{DEADLINE, eventually, holds};
use futures_util::{SinkExt, StreamExt, pin_mut};
use pgentra_gateway::SessionExpiry;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::fixture::{Running, Stage, failure, one, run};

async fn role(stage: &Stage, name: &str) -> Client {
    let superuser = stage.superuser().await;
    superuser.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'x'")).await.unwrap();
    superuser
}

/// Waits until no session of the role is left.
async fn gone(superuser: &Client, role: &str) {
    let sql = format!("SELECT count(*)::text FROM pg_stat_activity WHERE usename = '{role}'");
    let sessions = async || holds(one(superuser, &sql).await, |number| number == "0");
    eventually(DEADLINE, &format!("no session of {role}"), sessions).await;
}

/// A log-in whose connection is polled by the test, to see how it ends.
async fn driven(
    gateway: &Running,
    user: &str,
) -> (Client, tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>) {
    let (client, connection) = tokio_postgres::Config::new()
        .user(user)
        .dbname("postgres")
        .password("x")
        .connect_raw(gateway.dial_tls().await, NoTls)
        .await
        .unwrap();
    (client, tokio::spawn(connection))
}

#[test]
fn much_data_goes_both_ways() {
    run(async {
        for stage in [Stage::flexible().await, Stage::single().await] {
            let gateway = stage.gateway().await;
            role(stage, "copier").await;
            let client = gateway.connect("copier", "postgres", "x").await.unwrap();
            client.batch_execute("CREATE TEMP TABLE copied (line text)").await.unwrap();
            let line = format!("{}\n", "x".repeat(999));
            let chunk = Bytes::from(line.repeat(100));
            let sink = client.copy_in("COPY copied FROM STDIN").await.unwrap();
            pin_mut!(sink);
            for _ in 0..200 {
                sink.send(chunk.clone()).await.unwrap();
            }
            assert_eq!(sink.finish().await.unwrap(), 20_000);
            let rows = client.copy_out("COPY copied TO STDOUT").await.unwrap();
            pin_mut!(rows);
            let mut length = 0;
            while let Some(row) = rows.next().await {
                length += row.unwrap().len();
            }
            assert_eq!(length, 20_000_000);
        }
    });
}

#[test]
fn when_the_client_goes_the_servers_side_goes() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let superuser = role(stage, "leaving").await;
        drop(gateway.connect("leaving", "postgres", "x").await.unwrap());
        gone(&superuser, "leaving").await;
        // The client disappears without Terminate.
        let (_client, connection) = driven(&gateway, "leaving").await;
        connection.abort();
        gone(&superuser, "leaving").await;
    });
}

#[test]
fn when_the_server_goes_the_client_hears_its_last_words() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let superuser = role(stage, "terminated").await;
        let (_client, connection) = driven(&gateway, "terminated").await;
        superuser
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'terminated'",
            )
            .await
            .unwrap();
        assert_eq!(failure(connection.await.unwrap()).0, "57P01");
    });
}

#[test]
fn a_shutdown_ends_what_does_not_end_by_itself() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway_with(|config| config.limits.drain = Duration::ZERO).await;
        let superuser = role(stage, "drained").await;
        let (client, connection) = driven(&gateway, "drained").await;
        let address = gateway.gateway.address;
        gateway.stop().await;
        assert_eq!(failure(connection.await.unwrap()).0, "57P01");
        assert!(client.is_closed());
        gone(&superuser, "drained").await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn a_shutdown_lets_sessions_end_by_themselves() {
    run(async {
        let stage = Stage::flexible().await;
        // Longer than this test: the gateway stops only because the session ends.
        let gateway = stage.gateway_with(|config| config.limits.drain = Duration::from_secs(3600)).await;
        role(stage, "draining").await;
        let client = gateway.connect("draining", "postgres", "x").await.unwrap();
        gateway.gateway.shutdown.cancel();
        assert_eq!(one(&client, "SELECT 'still here'").await, "still here");
        drop(client);
        gateway.gateway.served.await.unwrap();
    });
}

#[test]
fn a_session_ends_with_its_token_where_that_is_asked_for() {
    use base64::Engine as _;
    run(async {
        let stage = Stage::flexible().await;
        let token = stage.vm_token();
        let payload = token.split('.').nth(1).unwrap();
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(claims["exp"].as_u64().unwrap());
        let gateway = stage.gateway().await;
        let sql = format!(
            "SELECT pgaadauth_create_principal_with_oid('expiring', '{}', 'service', false, false)",
            claims["oid"].as_str().unwrap()
        );
        stage.administrator(&gateway).await.batch_execute(&sql).await.unwrap();

        let ending = |expiry, left| {
            stage.gateway_with(move |config| {
                config.expiry = expiry;
                config.clock = Arc::new(move || expires - left);
            })
        };
        let end = SessionExpiry::End(Duration::from_secs(3600));
        let gateway = ending(end, Duration::from_millis(300)).await;
        let (_client, mut connection) = tokio_postgres::Config::new()
            .user("expiring")
            .dbname("postgres")
            .password(&token)
            .connect_raw(gateway.dial_tls().await, NoTls)
            .await
            .unwrap();
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        let mut heard = Vec::new();
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => heard.push(notice.message().to_owned()),
                Ok(_) => {}
                Err(error) => {
                    heard.push(error.code().unwrap().code().to_owned());
                    break;
                }
            }
        }
        assert!(heard[0].contains("the session ends then"), "{heard:?}");
        assert_eq!(heard[1..], ["57P01"]);

        // A token that lives by the leeway alone begins no session that would end at once.
        let gateway = ending(end, Duration::ZERO).await;
        let (code, message, _) = gateway.refusal("expiring", "postgres", &token).await;
        assert!(code == "28000" && message.starts_with("The access token has expired"), "{code} {message}");
        let gateway = ending(SessionExpiry::Off, Duration::ZERO).await;
        gateway.connect("expiring", "postgres", &token).await.unwrap();
    });
}

#[test]
fn a_gateway_that_is_dropped_drops_its_sessions() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let superuser = role(stage, "dropped_session").await;
        let (_client, connection) = driven(&gateway, "dropped_session").await;
        gateway.gateway.served.abort();
        assert!(gateway.gateway.served.await.unwrap_err().is_cancelled());
        let _ = connection.await.unwrap();
        gone(&superuser, "dropped_session").await;
    });
}

#[test]
fn a_control_connection_that_died_is_made_anew() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let superuser = role(stage, "patient").await;
        for _ in 0..3 {
            gateway.connect("patient", "postgres", "x").await.unwrap();
            // This ends the connections of other tests' gateways too, which have to reconnect.
            superuser
                .batch_execute("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'pgentra gateway'")
                .await
                .unwrap();
        }
        gateway.connect("patient", "postgres", "x").await.unwrap();
    });
}
