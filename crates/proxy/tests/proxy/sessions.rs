//! Sessions: start-ups of every kind, cancel, Unix sockets, big results, psql.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use pgentra_proxy::{Listener, Naming};
use pgentra_session::{Limits, UnixSocket};
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::startup::{
    CancelKey, CancelRequest, ProtocolVersion, StartupMessage, encode_gssenc_request, encode_ssl_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::fixture::{ROLE, Raw, Running, Stage, one, run};

#[test]
fn a_program_without_a_password_gets_a_session() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let client = running.connect(ROLE, "postgres").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        let long = one(&client, "SELECT repeat('x', 3000000)").await;
        assert_eq!(long.len(), 3_000_000);

        client.batch_execute("CREATE TEMP TABLE t (v text)").await.unwrap();
        let mut sink = Box::pin(client.copy_in("COPY t FROM STDIN").await.unwrap());
        for _ in 0..100 {
            sink.send(Bytes::from(vec![b'y'; 9_999])).await.unwrap();
            sink.send(Bytes::from_static(b"\n")).await.unwrap();
        }
        assert_eq!(sink.as_mut().finish().await.unwrap(), 100);
        let mut rows = Box::pin(client.copy_out("COPY t TO STDOUT").await.unwrap());
        let mut bytes = 0;
        while let Some(row) = rows.next().await {
            bytes += row.unwrap().len();
        }
        assert_eq!(bytes, 100 * 10_000);
    });
}

#[test]
fn requests_for_encryption_are_declined_and_every_parameter_arrives() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("application_name=default options='-c work_mem=1234kB'").await;
        let mut raw = Raw::new(running.dial().await);
        let mut out = BytesMut::new();
        encode_gssenc_request(&mut out);
        encode_ssl_request(&mut out);
        for request in out.chunks(8) {
            raw.stream.write_all(request).await.unwrap();
            assert_eq!(raw.stream.read_u8().await.unwrap(), b'N');
        }
        // A version that is yet to come, and an option of it.
        let start = StartupMessage::new(ProtocolVersion { major: 3, minor: 9 }, ROLE)
            .and_then(|start| start.with("database", "postgres"))
            .and_then(|start| start.with("application_name", "named"))
            .and_then(|start| start.with("_pq_.unheard_of", "on"))
            .and_then(|start| start.with("DateStyle", "German"))
            .unwrap();
        raw.start(&start).await;
        let messages = raw.until_ready().await;
        let BackendMessage::NegotiateProtocolVersion(negotiated) = &messages[0] else {
            panic!("{messages:?}");
        };
        assert!(format!("{negotiated:?}").contains("unheard_of"), "{negotiated:?}");
        let keys = messages.iter().filter_map(|message| match message {
            BackendMessage::BackendKeyData(key) => Some(key.key.expose().len()),
            _ => None,
        });
        assert_eq!(keys.collect::<Vec<_>>(), [32]);
        let parameter = |name: &str| {
            messages.iter().find_map(|message| match message {
                BackendMessage::ParameterStatus(status) if status.name == name.as_bytes() => {
                    Some(String::from_utf8_lossy(&status.value).into_owned())
                }
                _ => None,
            })
        };
        assert_eq!(parameter("application_name").as_deref(), Some("named"));
        assert_eq!(parameter("DateStyle").as_deref(), Some("German, DMY"));

        // The target supplies what the client leaves out.
        let client = running.connect(ROLE, "postgres").await.unwrap();
        assert_eq!(one(&client, "SHOW application_name").await, "default");
        assert_eq!(one(&client, "SHOW work_mem").await, "1234kB");
    });
}

#[test]
fn a_second_request_for_encryption_is_an_error() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let mut raw = Raw::new(running.dial().await);
        let mut out = BytesMut::new();
        encode_ssl_request(&mut out);
        raw.stream.write_all(&out).await.unwrap();
        assert_eq!(raw.stream.read_u8().await.unwrap(), b'N');
        raw.stream.write_all(&out).await.unwrap();
        assert_eq!(raw.error().await.sqlstate(), "0A000");
    });
}

#[test]
fn a_role_and_a_database_may_be_fixed() {
    run(async {
        let stage = Stage::shared().await;
        let target = format!("user={ROLE} dbname=postgres");
        let running = stage.inject(&target).await;
        running.connect(ROLE, "postgres").await.unwrap();
        for (user, database) in [("other_user", "postgres"), (ROLE, "template1")] {
            let refusal = running.refusal(user, database).await;
            assert_eq!(refusal.code().code(), "28000");
            assert!(refusal.message().starts_with("the proxy serves the "), "{refusal:?}");
            assert!(refusal.hint().unwrap().contains("--pin"), "{refusal:?}");
        }
        // A client that names no database gets the target's.
        let mut raw = Raw::new(running.dial().await);
        raw.start(&StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap()).await;
        raw.until_ready().await;

        let pinned = Running::new(stage.connector(&target), Naming::Pinned, Limits::default()).await;
        let client = pinned.connect("other_user", "template1").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user || '@' || current_database()").await, "myuser@postgres");
    });
}

#[test]
fn a_statement_is_cancelled_and_a_guessed_key_cancels_nothing() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let superuser = stage.superuser().await;
        for version in [ProtocolVersion::V3_0, ProtocolVersion::V3_2] {
            let name = format!("cancel {version}");
            let start = StartupMessage::new(version, ROLE)
                .and_then(|start| start.with("database", "postgres"))
                .and_then(|start| start.with("application_name", &name))
                .unwrap();
            let mut raw = Raw::new(running.dial().await);
            raw.start(&start).await;
            let key = raw.until_ready().await.into_iter().find_map(|message| match message {
                BackendMessage::BackendKeyData(key) => Some(key),
                _ => None,
            });
            let key = key.unwrap();
            assert_eq!(key.key.expose().len(), if version == ProtocolVersion::V3_2 { 32 } else { 4 });
            raw.query("SELECT pg_sleep(3600)").await;
            stage.sleeping(&superuser, &name).await;
            let mut guessed = key.key.expose().to_vec();
            guessed[0] ^= 1;
            request(&running, key.process_id, &guessed).await;
            request(&running, key.process_id + 1, key.key.expose()).await;
            stage.sleeping(&superuser, &name).await;

            request(&running, key.process_id, key.key.expose()).await;
            let mut answer = Vec::new();
            while !answer.windows(6).any(|bytes| bytes == b"C57014") {
                assert_ne!(raw.stream.read_buf(&mut answer).await.unwrap(), 0);
            }
            drop(raw);
            // A key is invalid once its session is over.
            request(&running, key.process_id, key.key.expose()).await;
        }
    });
}

/// Sends a cancel request and waits until the proxy is done with it.
async fn request(running: &Running, process_id: u32, key: &[u8]) {
    let mut out = BytesMut::new();
    let key = CancelKey::new(Bytes::copy_from_slice(key)).unwrap();
    CancelRequest { process_id, key }.encode(&mut out);
    let mut stream = running.dial().await;
    stream.write_all(&out).await.unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}

#[test]
fn a_unix_socket_leads_to_the_same_sessions() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let folder = std::env::temp_dir().join(format!("pgentra-inject-{}-socket", std::process::id()));
        let socket = UnixSocket::bind(&folder, 6543).unwrap();
        let path = socket.path().to_owned();
        let shutdown = CancellationToken::new();
        let served = Arc::clone(&running.proxy).serve(Listener::Unix(socket), shutdown.clone());
        let served = tokio::spawn(served);
        let mut config = tokio_postgres::Config::new();
        config.host_path(&folder).port(6543).user(ROLE).dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        drop(client);
        shutdown.cancel();
        served.await.unwrap();
        assert!(!path.exists());
        std::fs::remove_dir(&folder).unwrap();
    });
}

#[test]
fn psql_needs_no_password() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let conninfo = format!("host=127.0.0.1 port={} user={ROLE} dbname=postgres", running.address.port());
        let mut command = tokio::process::Command::new("psql");
        command.args(["-XAtw", "-c", "SELECT current_user", &conninfo]).env_remove("PGPASSWORD");
        // Environment variables of the caller's shell must not affect this connection.
        for name in ["PGSSLMODE", "PGSSLROOTCERT", "PGHOSTADDR", "PGSERVICE", "PGOPTIONS"] {
            command.env_remove(name);
        }
        match command.output().await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED psql, which is not here: cargo xtask test installs it");
            }
            output => {
                let output = output.unwrap();
                let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
                assert_eq!(out.unwrap(), format!("{ROLE}\n"), "{}", err.unwrap());
            }
        }
    });
}
