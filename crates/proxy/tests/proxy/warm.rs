//! Pooled sessions that were opened ahead.

use std::sync::Arc;
use std::time::Duration;

use eventually::{DEADLINE, eventually, holds};
use pgentra_proxy::{AuthProxy, Options, ProxyHandle, SharedState, ShutdownTokens};
use pgentra_session::Limits;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::fields::{Fields, Severity};
use pgentra_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

use crate::fixture::{ROLE, Raw, Running, Stage, on_loopback, one, pid, run};
use crate::scripted::{Connected, Scripted, fatal, setting};

fn warm(number: usize) -> Options {
    Options { warm: number, ..Options::default() }
}

#[test]
fn a_client_is_handed_a_session_that_stands_ready_and_nobody_gets_it_again() {
    run(async {
        let stage = Stage::shared().await;
        let running = Running::with(stage.connector(""), warm(2)).await;
        let superuser = stage.superuser().await;
        let first = running.named("warm once").await;
        running.until_supply(|supply| supply.ready == 2).await;
        let ready = stage.processes(&superuser, "warm once").await;
        assert_eq!(ready.len(), 3);
        let second = running.named("warm once").await;
        let handed = pid(&second).await;
        assert!(ready.contains(&handed) && handed != pid(&first).await);
        assert_eq!(running.proxy.supply().hits, 1);
        assert_eq!(one(&second, "SELECT current_user::text").await, ROLE);

        // Its cancel key is the client's own.
        let (statement, ()) = tokio::join!(second.batch_execute("SELECT pg_sleep(3600)"), async {
            stage.sleeping(&superuser, "warm once").await;
            second.cancel_token().cancel_query_raw(running.dial().await, NoTls).await.unwrap();
        });
        assert_eq!(statement.unwrap_err().code().unwrap().code(), "57014");

        drop(second);
        running.until_supply(|supply| supply.ready == 2 && supply.warmed == 3).await;
        let ended = async || !stage.processes(&superuser, "warm once").await.contains(&handed);
        eventually(DEADLINE, "the server process of the client ends", ended).await;
        let supply = running.proxy.supply();
        assert_eq!((supply.misses, supply.failed, supply.reused), (1, 0, 0));
    });
}

#[test]
fn only_the_very_same_start_up_is_served_from_it() {
    run(async {
        let stage = Stage::shared().await;
        let running = Running::with(stage.connector(""), warm(1)).await;
        let start = |name: &str, value: &str| {
            StartupMessage::new(ProtocolVersion::V3_0, ROLE)
                .and_then(|start| start.with("database", "postgres"))
                .and_then(|start| start.with("application_name", "warm exact"))
                .and_then(|start| start.with(name, value))
                .unwrap()
        };
        let ask = async |start: StartupMessage| {
            let mut raw = Raw::new(running.dial().await);
            raw.start(&start).await;
            raw.until_ready().await
        };
        ask(start("options", "-c work_mem=1MB")).await;
        running.until_supply(|supply| supply.ready == 1).await;
        for (about, other) in [
            ("another value", start("options", "-c work_mem=2MB")),
            ("another parameter", start("DateStyle", "German")),
            ("one less", start("options", "-c work_mem=1MB").without(|name| name == b"options")),
        ] {
            ask(other).await;
            assert_eq!(running.proxy.supply().hits, 0, "{about}");
        }
        // The proxy answers for the protocol version and its options itself.
        let newer = start("options", "-c work_mem=1MB").with("_pq_.unheard_of", "on").unwrap();
        let messages = ask(newer.with_version(ProtocolVersion { major: 3, minor: 9 })).await;
        assert_eq!(running.proxy.supply().hits, 1);
        assert!(matches!(messages[0], BackendMessage::NegotiateProtocolVersion(_)), "{messages:?}");
        let keys = messages.iter().filter_map(|message| match message {
            BackendMessage::BackendKeyData(key) => Some(key.key.expose().len()),
            _ => None,
        });
        assert_eq!(keys.collect::<Vec<_>>(), [32]);
    });
}

#[test]
fn a_client_that_needs_a_place_takes_it_from_those_that_wait() {
    run(async {
        let stage = Stage::shared().await;
        let limits = Limits { connections: 3, ..Limits::default() };
        let running = Running::with(stage.connector(""), Options { limits, ..warm(5) }).await;
        let superuser = stage.superuser().await;
        let _first = running.named("warm place").await;
        running.until_supply(|supply| supply.ready == 2).await;
        assert_eq!(
            stage.processes(&superuser, "warm place").await.len(),
            3,
            "the limit holds for all together"
        );
        let _second = running.named("warm guest").await;
        let _third = running.named("warm guest").await;
        stage.until_processes(&superuser, "warm place", 1).await;
        assert_eq!(running.proxy.supply().ready, 0);
        let refusal = running.refusal(ROLE, "postgres").await;
        assert_eq!(refusal.code().code(), "53300");
    });
}

#[test]
fn a_server_that_is_full_is_given_the_place_of_one_that_waits() {
    run(async {
        let stage = Stage::shared().await;
        let running = Running::with(stage.connector(""), warm(1)).await;
        let superuser = stage.superuser().await;
        superuser.batch_execute("CREATE DATABASE narrow CONNECTION LIMIT 2").await.unwrap();
        let _first = running.connect(ROLE, "narrow").await.unwrap();
        running.until_supply(|supply| supply.ready == 1).await;
        // Another start-up; both permits are taken.
        let start = StartupMessage::new(ProtocolVersion::V3_0, ROLE)
            .and_then(|start| start.with("database", "narrow"))
            .and_then(|start| start.with("application_name", "second"))
            .unwrap();
        let mut second = Raw::new(running.dial().await);
        second.start(&start).await;
        second.until_ready().await;
        assert_eq!(running.proxy.supply().ready, 0);
        let refusal = running.refusal(ROLE, "narrow").await;
        assert_eq!(refusal.code().code(), "53300", "{refusal:?}");
    });
}

#[test]
fn nothing_is_kept_ready_once_the_proxy_stops() {
    run(async {
        let stage = Stage::shared().await;
        let running = Running::with(stage.connector(""), warm(3)).await;
        let superuser = stage.superuser().await;
        let client = running.named("warm stop").await;
        running.until_supply(|supply| supply.ready == 3).await;
        running.shutdown.cancel();
        stage.until_processes(&superuser, "warm stop", 1).await;
        assert_eq!(running.proxy.supply().ready, 0);
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE, "the session stays");
        drop(client);
        running.served.await.unwrap();
    });
}

/// A proxy with one pooled session to a scripted server, and a client that made the proxy learn the
/// start-up.
struct OneReady {
    running: Running,
    server: Scripted,
    ready: Connected,
    _learned: (Raw<TcpStream>, Connected),
}

impl OneReady {
    async fn new(options: Options) -> Self {
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), options).await;
        let mut raw = Raw::new(running.dial().await);
        raw.start(&start()).await;
        let learned = server.session(1).await;
        raw.until_ready().await;
        let mut ready = server.session(2).await;
        ready.identify(b'1').await;
        running.until_supply(|supply| supply.ready == 1).await;
        Self { running, server, ready, _learned: (raw, learned) }
    }
}

fn start() -> StartupMessage {
    StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap()
}

/// The process id that a client is told.
fn process(messages: &[BackendMessage]) -> u32 {
    let process = messages.iter().find_map(|message| match message {
        BackendMessage::BackendKeyData(key) => Some(key.process_id),
        _ => None,
    });
    process.unwrap()
}

#[test]
fn a_session_that_the_server_spoke_to_is_never_handed_over() {
    run(async {
        for said in
            [vec![fatal("57P01")], vec![fatal("57P05")], vec![setting("TimeZone", "Europe/Paris")], vec![]]
        {
            let mut one = OneReady::new(warm(1)).await;
            one.ready.send(&said).await;
            if said.is_empty() {
                drop(one.ready);
            }
            // At once: only the hand-over itself has checked the session since.
            let mut client = Raw::new(one.running.dial().await);
            client.start(&start()).await;
            let told = process(&one.server.answer_from(3, client.until_ready()).await);
            assert!(told >= 3, "{said:?}");
        }
    });
}

#[test]
fn what_the_server_said_right_behind_the_sign_in_reaches_the_client() {
    run(async {
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), warm(1)).await;
        let mut first = Raw::new(running.dial().await);
        first.start(&start()).await;
        let _first = server.session(1).await;
        first.until_ready().await;
        let mut ready = server.accept().await;
        ready.start_up().await;
        let notice = BackendMessage::NoticeResponse(Fields::new(Severity::Notice, "00000", "hello"));
        ready.let_in_and_say(2, b"key!", Some(notice.clone())).await;
        ready.identify(b'1').await;
        running.until_supply(|supply| supply.ready == 1).await;
        let mut client = Raw::new(running.dial().await);
        client.start(&start()).await;
        ready.identify(b'1').await;
        let messages = client.until_ready().await;
        assert_eq!(process(&messages), 2);
        assert_eq!(client.read().await, Some(notice));
    });
}

#[test]
fn a_server_that_refuses_is_left_alone_and_a_client_is_not() {
    run(async {
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), warm(2)).await;
        let mut first = Raw::new(running.dial().await);
        first.start(&start()).await;
        let _first = server.session(1).await;
        first.until_ready().await;
        // The server refuses both sessions of the refill, and then the refill pauses.
        for _ in 0..2 {
            let mut refused = server.accept().await;
            refused.start_up().await;
            refused.send(&[fatal("57P03")]).await;
        }
        running.until_supply(|supply| supply.failed == 2).await;
        let mut client = Raw::new(running.dial().await);
        client.start(&start()).await;
        let told = process(&server.answer_from(7, client.until_ready()).await);
        assert!(told >= 7);
    });
}

#[test]
fn replication_is_not_kept_ready() {
    run(async {
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), Options { reuse: true, ..warm(1) }).await;
        for process_id in [1, 2] {
            let mut client = Raw::new(running.dial().await);
            client.start(&start().with("replication", "database").unwrap()).await;
            let mut session = server.accept().await;
            assert_eq!(session.start_up().await.get("replication"), Some(&b"database"[..]));
            session.let_in(process_id, b"key!").await;
            client.until_ready().await;
            drop(client);
            session.until_left().await;
        }
        assert_eq!(running.proxy.supply(), pgentra_proxy::PoolStats::default());
    });
}

#[test]
fn a_session_that_waited_too_long_is_ended() {
    run(async {
        let options = Options { warm_max_age: Duration::ZERO, ..warm(1) };
        let stage = Stage::shared().await;
        let server = Scripted::new().await;
        let running = Running::with(server.connector(stage), options).await;
        let mut first = Raw::new(running.dial().await);
        first.start(&start()).await;
        let _first = server.session(1).await;
        first.until_ready().await;
        let mut ahead = server.session(2).await;
        ahead.identify(b'1').await;
        ahead.until_left().await;
        assert_eq!(running.proxy.supply().ready, 0);
    });
}

#[test]
fn sessions_that_wait_go_with_their_injector() {
    run(async {
        let stage = Stage::shared().await;
        let superuser = stage.superuser().await;
        let shared = SharedState::default();
        let proxy = |number| {
            let options = Options { shared: shared.clone(), ..warm(number) };
            Arc::new(AuthProxy::new(stage.connector(""), options))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (old, new) = (proxy(2), proxy(1));
        let current = ProxyHandle::new(Arc::clone(&old));
        let stop = ShutdownTokens::default();
        let served = tokio::spawn(current.clone().serve(on_loopback(listener), stop.clone()));
        let connect = async || {
            let mut config = tokio_postgres::Config::new();
            config.user(ROLE).dbname("postgres").application_name("warm reload");
            let stream = TcpStream::connect(address).await.unwrap();
            let (client, connection) = config.connect_raw(stream, NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        };
        let _first = connect().await;
        stage.until_processes(&superuser, "warm reload", 3).await;
        current.replace(Arc::clone(&new));
        stage.until_processes(&superuser, "warm reload", 1).await;
        assert_eq!(old.supply().ready, 0);
        let _second = connect().await;
        eventually(DEADLINE, "one session is ready", async || {
            holds(new.supply(), |supply| supply.ready == 1)
        })
        .await;
        assert_eq!(shared.sessions(), 2, "one that is ready is no client's");
        stop.listening.cancel();
        stage.until_processes(&superuser, "warm reload", 2).await;
        assert!(!served.is_finished(), "sessions go on without a listener");
    });
}
