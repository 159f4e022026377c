//! Cancel requests and their keys.

use bytes::{Bytes, BytesMut};
use eventually::{DEADLINE, eventually};
use pgentra_wire::backend::{BackendKeyData, BackendMessage};
use pgentra_wire::startup::{CancelKey, CancelRequest, ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::{Client, NoTls};

use crate::fixture::{Running, Stage, failure, run};
use crate::raw::Raw;

const SLEEP: &str = "SELECT pg_sleep(3600)";

/// Waits until the role runs a statement that sleeps; returns its process id.
async fn sleeping(superuser: &Client, role: &str) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'";
    let sleeping = async || superuser.query_opt(sql, &[&role]).await.unwrap();
    eventually(DEADLINE, &format!("{role} runs pg_sleep"), sleeping).await.get(0)
}

/// A role with a password of its own.
async fn role(stage: &Stage, name: &str) -> Client {
    let superuser = stage.superuser().await;
    superuser.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'x'")).await.unwrap();
    superuser
}

/// Sends a cancel request without TLS and waits until the gateway is done with it.
async fn request(gateway: &Running, process_id: u32, key: &[u8]) {
    let mut stream = gateway.dial().await;
    let key = CancelKey::new(Bytes::copy_from_slice(key)).unwrap();
    let mut out = BytesMut::new();
    CancelRequest { process_id, key }.encode(&mut out);
    stream.write_all(&out).await.unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}

#[test]
fn a_statement_is_cancelled_inside_tls_and_outside() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let superuser = role(stage, "canceller").await;
        let client = gateway.connect("canceller", "postgres", "x").await.unwrap();
        let token = client.cancel_token();
        for inside_tls in [true, false] {
            let statement = client.batch_execute(SLEEP);
            let cancel = async {
                sleeping(&superuser, "canceller").await;
                if inside_tls {
                    token.cancel_query_raw(gateway.dial_tls().await, NoTls).await.unwrap();
                } else {
                    token.cancel_query_raw(gateway.dial().await, NoTls).await.unwrap();
                }
            };
            let (result, ()) = tokio::join!(statement, cancel);
            assert_eq!(failure(result).0, "57014");
        }
    });
}

#[test]
fn a_long_key_of_protocol_3_2_works_and_a_guessed_one_does_not() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let superuser = role(stage, "guessed").await;
        let key = |messages: &[BackendMessage]| {
            messages.iter().find_map(|message| match message {
                BackendMessage::BackendKeyData(key) => Some(key.clone()),
                _ => None,
            })
        };
        let mut raw = Raw::new(gateway.dial_tls().await);
        let start =
            StartupMessage::new(ProtocolVersion::V3_2, "guessed").unwrap().with("database", "postgres");
        raw.start(&start.unwrap()).await;
        raw.scram("x").await;
        let BackendKeyData { process_id, key } = key(&raw.until_ready().await).unwrap();
        assert_eq!(key.expose().len(), 32);
        let mut query = vec![b'Q', 0, 0, 0, u8::try_from(SLEEP.len() + 5).unwrap()];
        query.extend(SLEEP.as_bytes());
        query.push(0);
        raw.send(&query).await;
        let pid = sleeping(&superuser, "guessed").await;
        assert_eq!(pid.cast_unsigned(), process_id, "the process id is the server's own");

        // The beginning of the key, the key of another process, and plain guesses.
        request(&gateway, process_id, &key.expose()[..4]).await;
        request(&gateway, process_id + 1, key.expose()).await;
        for guess in 0..100_u32 {
            request(&gateway, process_id, &guess.to_be_bytes()).await;
        }
        assert_eq!(sleeping(&superuser, "guessed").await, pid);

        request(&gateway, process_id, key.expose()).await;
        assert_eq!(raw.later_error().await, "57014");
        drop(raw.into_stream());

        // A key is invalid once its session is over.
        request(&gateway, process_id, key.expose()).await;
    });
}
