//! Start-ups with options and replication.

use bytes::{Bytes, BytesMut};
use pgentra_proxy::{Naming, Options};
use pgentra_session::Limits;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::fields::{Fields, Severity};
use pgentra_wire::startup::{CancelKey, CancelRequest, ProtocolVersion, StartupMessage};
use tokio::io::AsyncWriteExt;
use tokio_postgres::NoTls;

use crate::fixture::{ROLE, Raw, Running, Stage, one, run};
use crate::scripted::Scripted;

#[test]
fn the_server_may_be_spoken_to_with_direct_tls() {
    run(async {
        let stage = Stage::shared().await;
        let options = Options { warm: 1, reuse: true, ..Options::default() };
        let running = Running::with(stage.connector("sslnegotiation=direct"), options).await;
        let superuser = stage.superuser().await;
        let client = running.named("direct tls").await;
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        let (statement, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(3600)"), async {
            stage.sleeping(&superuser, "direct tls").await;
            client.cancel_token().cancel_query_raw(running.dial().await, NoTls).await.unwrap();
        });
        assert_eq!(statement.unwrap_err().code().unwrap().code(), "57014");
    });
}

#[test]
fn replication_and_logical_replication_pass() {
    run(async {
        let stage = Stage::shared().await;
        let running = Running::new(stage.connector(""), Naming::Same, Limits::default()).await;
        let superuser = stage.superuser().await;
        superuser.batch_execute(&format!("ALTER ROLE {ROLE} REPLICATION")).await.unwrap();
        for (replication, statement) in [
            ("true", "IDENTIFY_SYSTEM"),
            ("true", "SHOW wal_level"),
            ("database", "IDENTIFY_SYSTEM"),
            ("database", "SELECT 1"),
        ] {
            let start = StartupMessage::new(ProtocolVersion::V3_0, ROLE)
                .and_then(|start| start.with("database", "postgres"))
                .and_then(|start| start.with("replication", replication))
                .unwrap();
            let mut raw = Raw::new(running.dial().await);
            raw.start(&start).await;
            raw.until_ready().await;
            raw.query(statement).await;
            assert!(raw.tags_until_ready().await.contains(&b'D'), "{replication}: {statement}");
        }
    });
}

#[test]
fn every_parameter_goes_to_the_server_and_protocol_options_do_not() {
    run(async {
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), Options::default()).await;
        let named = StartupMessage::new(ProtocolVersion::V3_0, ROLE)
            .and_then(|start| start.with("database", "db"))
            .and_then(|start| start.with("options", "-c geqo=off -c work_mem=1MB"))
            .and_then(|start| start.with("application_name", "named"))
            .and_then(|start| start.with("search_path", "one, \"Two\""))
            .and_then(|start| start.with("client_encoding", "LATIN1"))
            .and_then(|start| start.with("extension.setting", "\u{e9}"))
            .unwrap();
        let asked = named.clone().with("_pq_.option", "on").unwrap();
        let mut raw = Raw::new(running.dial().await);
        raw.start(&asked.with_version(ProtocolVersion::V3_2)).await;
        let mut session = server.accept().await;
        let received = session.start_up().await;
        let sorted = |start: &StartupMessage| {
            let mut parameters: Vec<_> =
                start.parameters().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            parameters.sort();
            parameters
        };
        assert_eq!(received.version(), ProtocolVersion::V3_0);
        assert_eq!(sorted(&received), sorted(&named));
        session.let_in(1, b"key!").await;
        let messages = raw.until_ready().await;
        let BackendMessage::NegotiateProtocolVersion(negotiated) = &messages[0] else {
            panic!("{messages:?}");
        };
        assert_eq!(negotiated.options().collect::<Vec<_>>(), [b"_pq_.option"]);
        assert_eq!(negotiated.newest(), ProtocolVersion::V3_2);
    });
}

/// Invariant 2: a client never gets the proxy's token, whatever the server sends before and right
/// after ReadyForQuery.
#[test]
fn a_server_that_repeats_the_token_does_not_get_it_to_the_client() {
    run(async {
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), Options::default()).await;
        let mut raw = Raw::new(running.dial().await);
        raw.start(&StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap()).await;
        let mut session = server.accept().await;
        session.start_up().await;
        let notice = BackendMessage::NoticeResponse(Fields::new(Severity::Notice, "00000", &session.token));
        session.let_in_and_say(1, b"key!", Some(notice)).await;
        raw.until_ready().await;
        let Some(BackendMessage::NoticeResponse(behind)) = raw.read().await else { panic!("no notice") };
        assert_eq!(behind.message(), "[redacted]");
    });
}

#[test]
fn the_servers_cancel_key_may_have_any_length() {
    run(async {
        const LONG: [u8; 256] = [0xa5; 256];
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), Options::default()).await;
        for key in [&b"four"[..], &LONG[..32], &LONG] {
            let mut raw = Raw::new(running.dial().await);
            raw.start(&StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap()).await;
            let mut session = server.accept().await;
            session.start_up().await;
            session.let_in(9, key).await;
            let handed = raw.until_ready().await.into_iter().find_map(|message| match message {
                BackendMessage::BackendKeyData(key) => Some(key),
                _ => None,
            });
            let handed = handed.unwrap();
            assert_eq!(handed.key.expose().len(), 4);
            assert_ne!(handed.key.expose(), key);
            let mut request = BytesMut::new();
            CancelRequest { process_id: 9, key: handed.key }.encode(&mut request);
            running.dial().await.write_all(&request).await.unwrap();
            let received = server.accept().await.cancel_request().await;
            let expected = CancelKey::new(Bytes::copy_from_slice(key)).unwrap();
            assert_eq!(received, CancelRequest { process_id: 9, key: expected });
        }
    });
}

#[test]
fn a_rate_that_is_used_up_is_said_and_sessions_that_are_ready_need_none() {
    run(async {
        let stage = Stage::shared().await;
        let options = Options { connect_rate: 1, reuse: true, ..Options::default() };
        let running = Running::with(stage.connector(""), options).await;
        let first = running.named("rate").await;
        // The bucket is empty. Six turns are the whole queue; no session has to wait for them here.
        let queued: Vec<_> = futures_util::future::join_all((0..8).map(|_| async {
            let mut raw = Raw::new(running.dial().await);
            raw.start(&StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap()).await;
            raw
        }))
        .await;
        let refused = futures_util::future::select_all(queued.into_iter().map(|mut raw| {
            Box::pin(async move {
                match raw.read().await {
                    Some(BackendMessage::ErrorResponse(fields)) => fields,
                    _ => std::future::pending().await,
                }
            })
        }));
        let (fields, ..) = refused.await;
        assert_eq!(fields.sqlstate(), "57P03");
        assert!(fields.hint().unwrap().contains("--connect-rate"), "{fields:?}");
        drop(first);
        running.until_supply(|supply| supply.ready == 1).await;
        running.named("rate").await;
        assert_eq!(running.proxy.supply().hits, 1);
    });
}
