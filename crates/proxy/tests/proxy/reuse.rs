//! Sessions that are reused for other clients.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use pgentra_proxy::Options;
use pgentra_session::Limits;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::startup::{CancelKey, CancelRequest, ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::fixture::{ROLE, Raw, Running, Stage, one, pid, run};
use crate::scripted::{Connected, Scripted, setting};

/// The queries of the proxy before it reuses a session, and the server's answers.
const CLEAN: &[u8] = b"Q\0\0\0\x10DISCARD ALL\0Q\0\0\0\x0fRESET ROLE\0\
    Q\0\0\0\x2aSELECT pg_catalog.pg_my_temp_schema()\0";
const CLEANED: &[u8] = b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05IC\0\0\0\x0aRESET\0Z\0\0\0\x05I\
    T\0\0\0\x06\0\x01D\0\0\0\x0b\0\x01\0\0\0\x010C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
const READY: &[u8] = b"Z\0\0\0\x05I";

async fn reusing(stage: &Stage) -> Running {
    Running::with(stage.connector(""), Options { reuse: true, ..Options::default() }).await
}

/// Ends a session as drivers do, and waits until it is pooled.
async fn leave(running: &Running, client: Client) {
    let before = running.proxy.supply().reused;
    drop(client);
    running.until_supply(|supply| supply.reused > before && supply.ready > 0).await;
}

#[test]
fn the_next_client_finds_nothing_of_the_one_before() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        let superuser = stage.superuser().await;
        let first = running.named("reuse clean").await;
        let process = pid(&first).await;
        let before = one(&first, "SHOW TimeZone").await;
        first
            .batch_execute(
                "SET work_mem = '1234kB'; SET TimeZone = 'Asia/Tokyo'; SET statement_timeout = '1h';
                 SET application_name = 'other_user'; SET client_encoding = 'LATIN1'; SET my.setting = 'mine';
                 CREATE SCHEMA left_behind CREATE SEQUENCE counted; SELECT nextval('left_behind.counted');
                 PREPARE prepared AS SELECT 1; LISTEN channel; SELECT pg_advisory_lock(4711);
                 DECLARE held CURSOR WITH HOLD FOR SELECT 1; SET ROLE pg_monitor",
            )
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        leave(&running, first).await;
        superuser.batch_execute("NOTIFY channel").await.unwrap();

        let (second, mut connection) = {
            let mut config = tokio_postgres::Config::new();
            config.user(ROLE).dbname("postgres").application_name("reuse clean");
            config.connect_raw(running.dial().await, tokio_postgres::NoTls).await.unwrap()
        };
        let parameter = connection.parameter("TimeZone").map(str::to_owned);
        let (messages, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                let _ = messages.send(message);
            }
        });
        assert_eq!(pid(&second).await, process, "it is the same server process");
        assert_eq!(parameter.as_deref(), Some(&*before), "the client was told how it is");
        for (sql, expected) in [
            ("SHOW TimeZone", &*before),
            ("SHOW work_mem", "4MB"),
            ("SHOW statement_timeout", "0"),
            ("SHOW application_name", "reuse clean"),
            ("SHOW client_encoding", "UTF8"),
            ("SELECT coalesce(current_setting('my.setting', true), '')", ""),
            ("SELECT current_user::text", ROLE),
            ("SELECT session_user::text", ROLE),
            ("SELECT count(*)::text FROM pg_prepared_statements WHERE name = 'prepared'", "0"),
            ("SELECT count(*)::text FROM pg_cursors WHERE name = 'held'", "0"),
            ("SELECT count(*)::text FROM pg_listening_channels()", "0"),
            (
                "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                "0",
            ),
        ] {
            assert_eq!(one(&second, sql).await, expected, "{sql}");
        }
        let sequence = second.query_one("SELECT lastval()", &[]).await.unwrap_err();
        assert_eq!(sequence.code().unwrap().code(), "55000", "{sequence:?}");
        assert!(heard.try_recv().is_err(), "no notification of the one before");
        assert_eq!(running.proxy.supply().hits, 1);
    });
}

#[test]
fn a_role_that_a_client_has_set_is_gone_each_time() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        let mut processes = std::collections::HashSet::new();
        for set in
            ["SET ROLE pg_monitor", "SET ROLE pg_monitor", "SELECT set_config('role', 'pg_monitor', false)"]
        {
            let client = running.named("reuse role").await;
            processes.insert(pid(&client).await);
            assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
            client.batch_execute(set).await.unwrap();
            assert_eq!(one(&client, "SELECT current_user::text").await, "pg_monitor");
            leave(&running, client).await;
        }
        assert_eq!(processes.len(), 1);
    });
}

#[test]
fn a_role_that_is_set_for_the_role_is_set_again() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        let superuser = stage.superuser().await;
        superuser.batch_execute("CREATE DATABASE owned").await.unwrap();
        let setting = format!(
            "CREATE ROLE owner; GRANT owner TO {ROLE}; ALTER ROLE {ROLE} IN DATABASE owned SET role = 'owner'"
        );
        superuser.batch_execute(&setting).await.unwrap();
        let first = running.connect(ROLE, "owned").await.unwrap();
        assert_eq!(one(&first, "SELECT current_user::text").await, "owner");
        first.batch_execute("RESET SESSION AUTHORIZATION").await.unwrap();
        let process = pid(&first).await;
        leave(&running, first).await;
        // The same when the proxy knows of the temporary schema already.
        for _ in 0..3 {
            let next = running.connect(ROLE, "owned").await.unwrap();
            assert_eq!(pid(&next).await, process);
            assert_eq!(one(&next, "SELECT current_user::text").await, "owner");
            next.batch_execute("SET ROLE none").await.unwrap();
            leave(&running, next).await;
        }
    });
}

fn start(application: &str) -> StartupMessage {
    StartupMessage::new(ProtocolVersion::V3_0, ROLE)
        .and_then(|start| start.with("database", "postgres"))
        .and_then(|start| start.with("application_name", application))
        .unwrap()
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    message
}

#[test]
fn a_session_that_was_left_in_the_middle_of_something_is_ended() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        let superuser = stage.superuser().await;
        let query = |sql: &str| message(b'Q', &[sql.as_bytes(), b"\0"].concat());
        let batch = [message(b'P', b"\0SELECT 1\0\0\0"), message(b'B', b"\0\0\0\0\0\0\0\0")].concat();
        for (number, (about, sent, ready)) in [
            ("an open transaction", query("BEGIN"), 1),
            ("a failed one", [query("BEGIN"), query("SELECT 1/0")].concat(), 2),
            ("COPY in", [query("CREATE TEMP TABLE t (v text)"), query("COPY t FROM STDIN")].concat(), 2),
            ("half a message", query("SELECT 1")[..9].to_vec(), 0),
            ("a batch without Sync", batch.clone(), 0),
            ("a batch with Flush", [batch, message(b'H', b"")].concat(), 0),
            ("an unread answer", query("SELECT repeat('x', 10000000)"), 0),
        ]
        .into_iter()
        .enumerate()
        {
            for terminate in [true, false] {
                let application = format!("reuse middle {number} {terminate}");
                let mut raw = Raw::new(running.dial().await);
                raw.start(&start(&application)).await;
                raw.until_ready().await;
                raw.stream.write_all(&sent).await.unwrap();
                for _ in 0..ready {
                    raw.tags_until_ready().await;
                }
                if terminate && !about.starts_with("half") {
                    raw.stream.write_all(&message(b'X', b"")).await.unwrap();
                }
                drop(raw);
                stage.until_processes(&superuser, &application, 0).await;
                assert_eq!(running.proxy.supply().reused, 0, "{about}");
            }
        }
    });
}

#[test]
fn whoever_hangs_up_without_a_word_leaves_a_session_too() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        for messages in [&b""[..], b"X\0\0\0\x04", b"X\0\0\0\x04Q"] {
            let reused = running.proxy.supply().reused;
            let mut raw = Raw::new(running.dial().await);
            raw.start(&start("reuse hang up")).await;
            raw.until_ready().await;
            raw.stream.write_all(messages).await.unwrap();
            raw.stream.shutdown().await.unwrap();
            running.until_supply(|supply| supply.reused == reused + 1).await;
            // The client gets the end of the connection.
            assert_eq!(raw.stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
        }
        let supply = running.proxy.supply();
        assert_eq!((supply.misses, supply.hits, supply.ready), (1, 2, 1));
    });
}

#[test]
fn a_session_that_was_ever_cancelled_is_ended() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        let superuser = stage.superuser().await;
        let client = running.named("reuse cancel").await;
        let (statement, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(3600)"), async {
            stage.sleeping(&superuser, "reuse cancel").await;
            client
                .cancel_token()
                .cancel_query_raw(running.dial().await, tokio_postgres::NoTls)
                .await
                .unwrap();
        });
        assert_eq!(statement.unwrap_err().code().unwrap().code(), "57014");
        drop(client);
        stage.until_processes(&superuser, "reuse cancel", 0).await;
        assert_eq!(running.proxy.supply().reused, 0);
    });
}

#[test]
fn a_session_whose_token_has_expired_is_ended() {
    run(async {
        // A separate fixture, because its clock moves.
        let stage = Stage::new().await;
        let running = reusing(&stage).await;
        let superuser = stage.superuser().await;
        let (first, second) = (running.named("expired").await, running.named("expired").await);
        leave(&running, first).await;
        stage.clock().advance(Duration::from_secs(25 * 60 * 60));
        drop(second);
        // Neither the session that is being cleaned nor the pooled one is given to a client any
        // more.
        stage.until_processes(&superuser, "expired", 1).await;
        let third = running.named("expired").await;
        stage.until_processes(&superuser, "expired", 1).await;
        let supply = running.proxy.supply();
        assert_eq!((supply.hits, supply.misses, supply.reused, supply.ready), (0, 3, 1, 0));
        leave(&running, third).await;
    });
}

#[test]
fn many_clients_share_few_sessions_and_nothing_else() {
    run(async {
        let stage = Stage::shared().await;
        let limits = Limits { connections: 20, ..Limits::default() };
        let options = Options { reuse: true, limits, ..Options::default() };
        let running = Running::with(stage.connector(""), options).await;
        let clients = (0..8).map(|number| {
            let running = &running;
            async move {
                for round in 0..25 {
                    let client = running.named("reuse many").await;
                    let mine = format!("{number}.{round}");
                    let found = "SELECT coalesce(current_setting('my.setting', true), '')";
                    assert_eq!(one(&client, found).await, "");
                    client
                        .batch_execute(&format!("SET my.setting = '{mine}'; PREPARE mine AS SELECT 1"))
                        .await
                        .unwrap();
                    assert_eq!(one(&client, found).await, mine);
                }
            }
        });
        join_all(clients).await;
        let supply = running.proxy.supply();
        assert_eq!(supply.hits + supply.misses, 200);
        assert!(supply.misses <= 20 && supply.hits >= 180, "{supply:?}");
    });
}

#[test]
fn nothing_is_kept_for_the_next_once_the_proxy_stops() {
    run(async {
        let stage = Stage::shared().await;
        let running = reusing(stage).await;
        let superuser = stage.superuser().await;
        let (first, second) = (running.named("reuse stop").await, running.named("reuse stop").await);
        leave(&running, first).await;
        running.shutdown.cancel();
        stage.until_processes(&superuser, "reuse stop", 1).await;
        drop(second);
        stage.until_processes(&superuser, "reuse stop", 0).await;
        running.served.await.unwrap();
    });
}

/// A client of a proxy whose server is scripted, both in the middle of a session.
async fn scripted(
    server: &Scripted,
    running: &Running,
    process_id: u32,
) -> (Raw<TcpStream>, Connected, CancelRequest) {
    let mut client = Raw::new(running.dial().await);
    client.start(&start("scripted")).await;
    let mut session = server.session(process_id).await;
    session.identify(b'1').await;
    let key = client.until_ready().await.into_iter().find_map(|message| match message {
        BackendMessage::BackendKeyData(key) => {
            Some(CancelRequest { process_id: key.process_id, key: key.key })
        }
        _ => None,
    });
    (client, session, key.unwrap())
}

async fn scripted_stage() -> (Scripted, Running) {
    let stage = Stage::shared().await;
    let server = Scripted::new().await;
    let options = Options { reuse: true, ..Options::default() };
    let running = Running::with(server.connector(stage), options).await;
    (server, running)
}

#[test]
fn settings_are_told_as_they_are_and_the_key_is_another() {
    run(async {
        let (server, running) = scripted_stage().await;
        let (mut client, mut session, old) = scripted(&server, &running, 7).await;
        // One setting changed by the client, one by the server's new configuration.
        session.send(&[setting("TimeZone", "Asia/Tokyo")]).await;
        client.read().await.unwrap();
        client.stream.write_all(b"X\0\0\0\x04").await.unwrap();
        session.expect(CLEAN).await;
        session.send(&[setting("TimeZone", "Europe/Paris"), setting("is_superuser", "on")]).await;
        session.stream.write_all(CLEANED).await.unwrap();
        running.until_supply(|supply| supply.ready == 1).await;

        let mut next = Raw::new(running.dial().await);
        next.start(&start("scripted").with_version(ProtocolVersion::V3_2)).await;
        session.identify(b'1').await;
        let messages = next.until_ready().await;
        let settings: Vec<_> =
            messages.iter().filter(|it| matches!(it, BackendMessage::ParameterStatus(_))).collect();
        assert_eq!(settings, [&setting("TimeZone", "Europe/Paris"), &setting("is_superuser", "on")]);
        let key = messages.iter().find_map(|message| match message {
            BackendMessage::BackendKeyData(key) => Some(key),
            _ => None,
        });
        let key = key.unwrap();
        assert_eq!((key.process_id, key.key.expose().len()), (7, 32));
        assert_ne!(key.key, old.key);
        // The old key is unknown: the proxy hangs up and dials no server.
        let mut request = BytesMut::new();
        old.encode(&mut request);
        let mut stream = running.dial().await;
        stream.write_all(&request).await.unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        // The new key is valid, so the server's next connection is its cancel request.
        request.clear();
        CancelRequest { process_id: 7, key: key.key.clone() }.encode(&mut request);
        stream = running.dial().await;
        stream.write_all(&request).await.unwrap();
        let received = server.accept().await.cancel_request().await;
        assert_eq!(
            received,
            CancelRequest { process_id: 7, key: CancelKey::new(Bytes::from_static(b"key!")).unwrap() }
        );
    });
}

#[test]
fn a_cancel_request_on_its_way_reaches_no_other_client() {
    run(async {
        let (server, running) = scripted_stage().await;
        let (mut client, session, key) = scripted(&server, &running, 7).await;
        let mut request = BytesMut::new();
        key.encode(&mut request);
        let mut stream = running.dial().await;
        stream.write_all(&request).await.unwrap();
        // The request was forwarded and waits for the server to accept it.
        let mut canceller = server.accept().await;
        canceller.cancel_request().await;
        client.stream.write_all(b"X\0\0\0\x04").await.unwrap();
        session.until_left().await;
        assert_eq!(running.proxy.supply().reused, 0);
    });
}

#[test]
fn an_unexpected_answer_to_discard_all_ends_the_session() {
    run(async {
        let (server, running) = scripted_stage().await;
        for (about, answer) in [
            ("an error", &b"E\0\0\0\x05\0Z\0\0\0\x05IC\0\0\0\x0aRESET\0Z\0\0\0\x05I"[..]),
            ("something else", b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"),
            ("more", &[CLEANED, READY].concat()),
            ("no protocol", b"\0\0\0\0\0"),
        ] {
            let (mut client, mut session, _) = scripted(&server, &running, 7).await;
            client.stream.write_all(b"X\0\0\0\x04").await.unwrap();
            session.expect(CLEAN).await;
            session.stream.write_all(answer).await.unwrap();
            session.until_left().await;
            assert_eq!(running.proxy.supply().reused, 0, "{about}");
        }
    });
}

#[test]
fn whoever_comes_while_a_session_is_cleaned_gets_that_one() {
    run(async {
        let (server, running) = scripted_stage().await;
        let (mut client, mut session, _) = scripted(&server, &running, 7).await;
        client.stream.write_all(b"X\0\0\0\x04").await.unwrap();
        session.expect(CLEAN).await;
        let mut next = Raw::new(running.dial().await);
        next.start(&start("scripted")).await;
        session.stream.write_all(CLEANED).await.unwrap();
        session.identify(b'1').await;
        next.until_ready().await;
        assert_eq!(running.proxy.supply().hits, 1);
    });
}
