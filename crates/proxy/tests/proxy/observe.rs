//! Telemetry: metrics, status, probes and the audit log, none of which contains a token.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eventually::{DEADLINE, eventually, holds};
use pgentra_connect::Connector;
use pgentra_emulator::{Endpoint, Fault};
use pgentra_proxy::http::{HttpServer, Scope};
use pgentra_proxy::telemetry::{AuditLog, Telemetry};
use pgentra_proxy::{AuthProxy, Options, ProxyHandle, ShutdownTokens};
use pgentra_session::Limits;
use pgentra_system::{Clock as _, SystemClock};
use pgentra_wire::startup::{CancelKey, CancelRequest, ProtocolVersion, StartupMessage};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use crate::fixture::{ROLE, Raw, Running, Stage, UNMAPPED, on_loopback, one, run};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An auth proxy with telemetry and an admin listener.
pub(crate) struct Watched {
    telemetry: Telemetry,
    stop: CancellationToken,
    audit: Kept,
    admin: SocketAddr,
    pub(crate) running: Running,
}

impl Watched {
    pub(crate) async fn new(connector: Connector, limits: Limits) -> Self {
        Self::writing_to(Kept::default(), connector, limits).await
    }

    async fn writing_to(audit: Kept, connector: Connector, limits: Limits) -> Self {
        let stop = CancellationToken::new();
        let kept = audit.clone();
        let log = AuditLog::start(Box::new(move || Ok(Box::new(kept.clone())))).unwrap();
        let telemetry = Telemetry::new(|| SystemClock.now(), stop.clone(), Some(log));
        let options = Options { limits, telemetry: telemetry.target("my-target"), ..Options::default() };
        let running = Running::with(connector, options).await;
        let admin = listen(&telemetry, Scope::Admin).await;
        let watched = Self { telemetry, stop, audit, admin, running };
        let status = watched.status().await;
        assert_eq!(status["targets"][0]["listening"].as_array().map(Vec::len), Some(1), "{status:#}");
        watched
    }

    async fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path).await
    }

    pub(crate) async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status.json").await.1).unwrap()
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    async fn audit(&self) -> Vec<Value> {
        self.telemetry.audit().unwrap().flush().await;
        self.audit.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until no client is connected.
    async fn empty(&self) {
        let series = "pgentra_proxy_connections_open{target=\"my-target\"}";
        let open = async || holds(self.metric(series).await, |open| *open == Some(0.0));
        eventually(DEADLINE, "no client is connected", open).await;
    }
}

async fn listen(telemetry: &Telemetry, scope: Scope) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = HttpServer::new(listener, scope, telemetry.clone()).unwrap();
    tokio::spawn(admin.serve(CancellationToken::new()));
    address
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

/// The HTTP status and the whole answer, with its head.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, if request.contains("X-Whole") { answer } else { body })
}

/// Invariant 2: after successful and failed sign-ins, no token is in any output.
#[test]
fn sessions_are_counted_and_written_down_and_no_token_is_seen() {
    run(async {
        let logged = Kept::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone());
        subscriber.with_max_level(LevelFilter::TRACE).init();
        let stage = Stage::shared().await;
        let watched = Watched::new(stage.connector(""), Limits::default()).await;
        let client = watched.running.connect(ROLE, "postgres").await.unwrap();
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        assert_eq!(one(&client, "SELECT repeat('x', 1000000)").await.len(), 1_000_000);
        watched.running.refusal(UNMAPPED, "postgres").await;
        watched.running.refusal(ROLE, "nowhere").await;

        let status = watched.status().await;
        let target = &status["targets"][0];
        assert_eq!(target["sessions"]["open"], 1, "{status:#}");
        assert_eq!(target["sessions"]["limit"], 100);
        assert!(target["bytes_to_client"].as_u64().unwrap() > 1_000_000, "while the session is open");
        let vm = stage.azure.vm();
        let identity = &status["identities"][0];
        assert_eq!(target["identity"], 0);
        assert_eq!(identity["object_id"], vm.object_id().to_string());
        assert_eq!(identity["client_id"], vm.client_id().to_string());
        assert_eq!(identity["source"], "imds");
        assert_eq!(target["refusals"]["28000"], 1);
        assert_eq!(target["listening"][0], watched.running.address.to_string());
        assert_eq!(status["problems"].as_array().unwrap().len(), 2);
        assert_eq!(status["problems"][0]["sqlstate"], "3D000", "the newest first");
        let cancel = client.cancel_token();
        cancel.cancel_query_raw(watched.running.dial().await, tokio_postgres::NoTls).await.unwrap();
        let mut guess = BytesMut::new();
        let key = CancelKey::new(Bytes::from_static(b"good")).unwrap();
        CancelRequest { process_id: pid.cast_unsigned(), key }.encode(&mut guess);
        let mut guesser = watched.running.dial().await;
        guesser.write_all(&guess).await.unwrap();
        assert_eq!(guesser.read(&mut [0]).await.unwrap(), 0, "nothing is said of a guess");
        // A driver that gives up before it is connected sends Terminate; it is not refused.
        let mut early = watched.running.dial().await;
        early.write_all(b"X\0\0\0\x04").await.unwrap();
        assert_eq!(early.read(&mut [0]).await.unwrap(), 0, "nothing is said to it");
        drop((client, early));
        watched.empty().await;

        for (series, value) in [
            ("connections_total{target=\"my-target\"}", 6.0),
            ("cancels_total{target=\"my-target\",result=\"passed_on\"}", 1.0),
            ("cancels_total{target=\"my-target\",result=\"unknown_key\"}", 1.0),
            ("cancels_total{target=\"my-target\",result=\"failed\"}", 0.0),
            ("sessions_total{target=\"my-target\"}", 1.0),
            ("sessions_open{target=\"my-target\"}", 0.0),
            ("sessions_ended_total{target=\"my-target\",by=\"client\"}", 1.0),
            ("refusals_total{target=\"my-target\",sqlstate=\"28000\"}", 1.0),
            ("refusals_total{target=\"my-target\",sqlstate=\"3D000\"}", 1.0),
            ("open_failures_total{target=\"my-target\",reason=\"refused\"}", 2.0),
            ("session_start_seconds_count{target=\"my-target\"}", 1.0),
            ("open_seconds_count{target=\"my-target\",stage=\"tls\"}", 1.0),
            ("token_requests_total{target=\"my-target\",result=\"failure\"}", 0.0),
            ("audit_lines_lost_total", 0.0),
        ] {
            assert_eq!(watched.metric(&format!("pgentra_proxy_{series}")).await, Some(value), "{series}");
        }
        let stages = "pgentra_proxy_open_seconds_sum{target=\"my-target\",stage=\"tls\"}";
        assert!(watched.metric(stages).await.unwrap() > 0.0);
        let left = "pgentra_proxy_token_life_left_seconds{target=\"my-target\"}";
        assert!(watched.metric(left).await.unwrap() > 0.0);

        let audit = watched.audit().await;
        let events: Vec<_> = audit.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["start", "refused", "refused", "end"]);
        let (start, refused, end) = (&audit[0], &audit[1], &audit[3]);
        assert_eq!((&start["client_role"], &start["role"]), (&ROLE.into(), &ROLE.into()), "{start}");
        assert_eq!((&start["database"], &start["target"]), (&"postgres".into(), &"my-target".into()));
        assert_eq!(start["object_id"], vm.object_id().to_string());
        assert_eq!(start["tenant"], stage.azure.tenant().to_string());
        assert_eq!(start["backend_pid"], pid);
        assert!(start["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{start}");
        assert_eq!((&refused["sqlstate"], &refused["role"]), (&"28000".into(), &UNMAPPED.into()));
        assert_eq!((&end["session"], &end["ended_by"]), (&start["session"], &"client".into()), "{end}");
        assert!(audit.iter().all(|line| line["instance"] == start["instance"]), "{audit:?}");
        assert!(end["bytes_to_client"].as_u64().unwrap() > 1_000_000, "{end}");
        assert!(end["seconds"].as_f64().is_some() && end["backend_pid"] == pid, "{end}");

        let token = stage.token().await;
        let seen = [
            watched.get("/metrics").await.1,
            ask(
                watched.admin,
                "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n",
            )
            .await
            .1,
            watched.get("/status.json").await.1,
            watched.get("/readiness").await.1,
            watched.get("/").await.1,
            watched.audit.text(),
            logged.text(),
            format!("{:?}", watched.telemetry.target("my-target")),
        ];
        for (at, text) in seen.iter().enumerate() {
            assert!(!text.is_empty(), "{at}");
            // Nor a part of it: with the signature and known claims, a token can be put together.
            for piece in token.split('.') {
                assert!(!text.contains(piece), "{at} lets a part of the token be read");
            }
        }
    });
}

/// Processes that write to one file one after the other, or at the same time: each session number
/// occurs once per process.
#[test]
fn the_lines_of_a_session_can_be_paired_whatever_process_wrote_them() {
    run(async {
        let stage = Stage::shared().await;
        let file = Kept::default();
        let mut processes = Vec::new();
        for _ in 0..3 {
            let process = Watched::writing_to(file.clone(), stage.connector(""), Limits::default()).await;
            let clients = [
                process.running.connect(ROLE, "postgres").await.unwrap(),
                process.running.connect(ROLE, "postgres").await.unwrap(),
            ];
            process.running.refusal(UNMAPPED, "postgres").await;
            processes.push((process, clients));
        }
        for (process, clients) in processes {
            drop(clients);
            process.empty().await;
            process.audit().await;
        }
        let mut pairs = BTreeMap::<(String, u64), Vec<Value>>::new();
        let mut instances = BTreeSet::new();
        for line in file.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let instance = line["instance"].as_str().unwrap().to_owned();
            instances.insert(instance.clone());
            if let Some(session) = line["session"].as_u64() {
                pairs.entry((instance, session)).or_default().push(line);
            }
        }
        assert_eq!((instances.len(), pairs.len()), (3, 6));
        for (session, lines) in pairs {
            let [start, end] = &lines[..] else { panic!("{session:?}: {lines:?}") };
            assert_eq!((&start["event"], &end["event"]), (&"start".into(), &"end".into()));
            assert_eq!((&start["client"], &start["backend_pid"]), (&end["client"], &end["backend_pid"]));
        }
    });
}

#[test]
fn how_a_session_ended_is_told() {
    run(async {
        let stage = Stage::shared().await;
        let superuser = stage.superuser().await;
        let limits = Limits { drain: Duration::from_millis(1), ..Limits::default() };
        let watched = Watched::new(stage.connector(""), limits).await;
        // A client that does not hang up by itself.
        let mut raw = Raw::new(watched.running.dial().await);
        let start = StartupMessage::new(ProtocolVersion::V3_0, ROLE)
            .and_then(|start| start.with("database", "postgres"))
            .and_then(|start| start.with("application_name", "ended by the server"))
            .unwrap();
        raw.start(&start).await;
        raw.until_ready().await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
        superuser.query(sql, &[&"ended by the server"]).await.unwrap();
        while raw.read().await.is_some() {}
        drop(raw);
        watched.empty().await;
        let drained = watched.running.connect(ROLE, "postgres").await.unwrap();
        watched.running.shutdown.cancel();
        watched.running.served.await.unwrap();
        drop(drained);
        watched.telemetry.audit().unwrap().flush().await;
        let ends: Vec<Value> = watched
            .audit
            .text()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["event"] == "end")
            .map(|line| line["ended_by"].clone())
            .collect();
        assert_eq!(ends, ["server", "drained"]);
    });
}

#[test]
fn readiness_follows_listeners_tokens_and_drain() {
    run(async {
        let stage = Stage::new().await;
        let connector = stage.connector("");
        // The second is for the probe.
        for _ in 0..2 {
            stage.azure.faults().push(
                Endpoint::ImdsToken,
                Fault::status(400, r#"{"error":"invalid_request","error_description":"x"}"#),
            );
        }
        connector.token_ready().await.unwrap_err();
        let watched = Watched::new(connector, Limits::default()).await;
        assert_eq!(watched.get("/startup").await.0, 503);
        let (status, reason) = watched.get("/readiness").await;
        assert_eq!((status, reason.starts_with("starting")), (503, true), "{reason}");
        assert_eq!(watched.get("/liveness").await, (200, "alive\n".to_owned()));
        watched.telemetry.started();
        assert_eq!(watched.get("/startup").await.0, 200);
        let (status, reason) = watched.get("/readiness").await;
        assert_eq!((status, reason.starts_with("no token for my-target")), (503, true), "{reason}");
        assert_eq!(watched.status().await["state"], "not ready");
        // No client has connected: the probe itself asked for the token.
        let ready = "ready\n1 target: 0 serving, 1 idle, 0 failing\n".to_owned();
        let readiness = async || holds(watched.get("/readiness").await, |told| *told == (200, ready.clone()));
        eventually(DEADLINE, "the proxy is ready", readiness).await;
        assert_eq!(watched.status().await["state"], "ready");
        assert_eq!(watched.metric("pgentra_proxy_ready{target=\"my-target\"}").await, Some(1.0));

        watched.running.shutdown.cancel();
        watched.running.served.await.unwrap();
        let reason = get(watched.admin, "/readiness").await.1;
        assert!(reason.starts_with("no listener is up for my-target"), "{reason}");
        watched.stop.cancel();
        let reason = get(watched.admin, "/readiness").await.1;
        assert!(reason.starts_with("draining"), "{reason}");
        assert_eq!(get(watched.admin, "/liveness").await.0, 200);
    });
}

#[test]
fn a_token_that_has_expired_is_not_fresh() {
    run(async {
        let stage = Stage::shared().await;
        let telemetry = Telemetry::new(
            // A clock two days ahead.
            || SystemClock.now() + Duration::from_secs(2 * 86_400),
            CancellationToken::new(),
            None,
        );
        let options = Options { telemetry: telemetry.target("t"), ..Options::default() };
        let _running = Running::with(stage.connector(""), options).await;
        telemetry.started();
        let admin = listen(&telemetry, Scope::Health).await;
        stage.token().await;
        let listening = async || {
            let reason = get(admin, "/readiness").await.1;
            holds(reason, |reason| !reason.starts_with("no listener"))
        };
        eventually(DEADLINE, "the proxy listens", listening).await;
        let (status, reason) = get(admin, "/readiness").await;
        assert_eq!((status, reason.lines().next()), (503, Some("no token yet for t")));
    });
}

#[test]
fn each_listener_answers_what_is_its_own() {
    run(async {
        let stage = Stage::shared().await;
        let watched = Watched::new(stage.connector(""), Limits::default()).await;
        let health = listen(&watched.telemetry, Scope::Health).await;
        for (path, admin, public) in [
            ("/startup", 503, 503),
            ("/liveness", 200, 200),
            ("/metrics", 200, 200),
            ("/", 200, 404),
            ("/status.json", 200, 404),
            ("/quitquitquit", 403, 404),
            ("/pool/close", 403, 404),
            ("/nothing", 404, 404),
        ] {
            assert_eq!(watched.get(path).await.0, admin, "{path}");
            assert_eq!(get(health, path).await.0, public, "{path}");
        }
        let request =
            |method: &str, path: &str, more: &str| format!("{method} {path} HTTP/1.1\r\n{more}\r\n\r\n");
        let own = format!("Host: {}", watched.admin);
        for (method, path, more, status) in [
            ("POST", "/metrics", own.clone(), 405),
            ("HEAD", "/liveness", own.clone(), 200),
            ("GET", "/liveness", "Host: evil.example".to_owned(), 421),
            ("GET", "/liveness", "X-None: 1".to_owned(), 421),
            ("POST", "/quitquitquit", "Host: evil.example".to_owned(), 421),
            ("POST", "/quitquitquit", format!("{own}\r\nOrigin: http://evil.example"), 403),
            ("POST", "/quitquitquit", format!("{own}\r\nOrigin: null"), 403),
            ("POST", "/pool/close", "Host: evil.example".to_owned(), 421),
            ("POST", "/pool/close", format!("{own}\r\nOrigin: http://evil.example"), 403),
            ("DELETE", "/pool/close", own.clone(), 403),
            ("POST", "/pool/close?datbase=x", own.clone(), 400),
            ("POST", "/pool/close?database=", own.clone(), 400),
            ("POST", "/pool/close?database=x&database=y", own.clone(), 400),
            ("GET", "/liveness", format!("{own}\r\nX-Long: {}", "x".repeat(20_000)), 431),
            ("GET", "/liveness", format!("{own}{}", "\r\nX-Many: 1".repeat(100)), 431),
        ] {
            assert_eq!(ask(watched.admin, &request(method, path, &more)).await.0, status, "{method} {path}");
        }
        // The health listener accepts any Host header: a probe of Kubernetes sends the pod's
        // address.
        assert_eq!(ask(health, &request("GET", "/liveness", "Host: 10.0.0.7:9090")).await.0, 200);
        assert_eq!(ask(health, &request("POST", "/quitquitquit", "Host: localhost")).await.0, 404);
        assert!(!watched.stop.is_cancelled(), "a rejected request stopped the proxy");
        assert_eq!(ask(watched.admin, &request("POST", "/quitquitquit", &own)).await.0, 200);
        assert!(watched.stop.is_cancelled());
    });
}

#[test]
fn sessions_that_wait_let_go_of_their_database_when_asked() {
    run(async {
        let stage = Stage::shared().await;
        let superuser = stage.superuser().await;
        let telemetry = Telemetry::new(|| SystemClock.now(), CancellationToken::new(), None);
        let admin = listen(&telemetry, Scope::Admin).await;
        let close = async |query: &str| {
            ask(admin, &format!("POST /pool/close{query} HTTP/1.1\r\nHost: {admin}\r\n\r\n")).await
        };
        let name = "let \"go\" of & + ü";
        let named = "?database=let+%22go%22%20of%20%26%20%2B%20%C3%BC";
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        for (target, options) in [
            ("reusing", Options { reuse: true, ..Options::default() }),
            ("warm", Options { warm: 2, ..Options::default() }),
        ] {
            superuser.batch_execute(&format!("CREATE DATABASE {quoted}")).await.unwrap();
            let options = Options { telemetry: telemetry.target(target), ..options };
            let running = Running::with(stage.connector(""), options).await;
            for database in [name, "postgres"] {
                drop(running.connect(ROLE, database).await.unwrap());
            }
            let waiting = if target == "warm" { 4 } else { 2 };
            running.until_supply(|supply| supply.ready == waiting).await;
            assert_eq!(close("?database=another").await.1.lines().last(), Some("closed 0"));
            let closed = format!("closed {}", waiting / 2);
            assert_eq!(close(named).await.1.lines().last(), Some(&*closed));
            superuser.batch_execute(&format!("DROP DATABASE {quoted}")).await.unwrap();
            assert_eq!(running.proxy.supply().ready, waiting / 2, "those of another database stay");
            assert_eq!(close("").await.1.lines().last(), Some(&*closed));
            assert_eq!(running.proxy.supply().ready, 0);
            // One that has gone is not asked any more.
            running.shutdown.cancel();
            running.served.await.unwrap();
        }
        assert_eq!(close("").await.1.lines().last(), Some("closed 0"));
    });
}

#[test]
fn the_page_may_load_nothing_and_run_only_itself() {
    run(async {
        let stage = Stage::shared().await;
        let watched = Watched::new(stage.connector(""), Limits::default()).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nX-Whole: 1\r\n\r\n", watched.admin);
        let (_, first) = ask(watched.admin, &request).await;
        let nonce = |answer: &str| answer.split("'nonce-").nth(1).unwrap()[..32].to_owned();
        let policy = first.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(first.contains(&format!("<script nonce=\"{}\">", nonce(&first))));
        assert!(!first.contains("{{nonce}}") && !first.contains("://"), "it names no other place");
        assert!(!first.to_lowercase().contains("access-control-allow"));
        let (_, second) = ask(watched.admin, &request).await;
        assert_ne!(nonce(&first), nonce(&second));
    });
}

#[tokio::test]
async fn the_admin_listener_stays_on_this_machine() {
    let telemetry = Telemetry::new(|| SystemClock.now(), CancellationToken::new(), None);
    for (scope, good) in [(Scope::Admin, false), (Scope::Health, true)] {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        assert_eq!(HttpServer::new(listener, scope, telemetry.clone()).is_ok(), good, "{scope:?}");
    }
}

#[test]
fn a_target_that_is_set_up_anew_goes_on_counting_and_one_that_is_gone_is_not_shown() {
    run(async {
        let stage = Stage::shared().await;
        let watched = Watched::new(stage.connector(""), Limits::default()).await;
        drop(watched.running.connect(ROLE, "postgres").await.unwrap());
        watched.empty().await;
        let limits = Limits { connections: 7, ..Limits::default() };
        let telemetry = watched.telemetry.target("my-target");
        let anew = Options { limits, telemetry, ..Options::default() };
        let other = Options { telemetry: watched.telemetry.target("other"), ..Options::default() };
        let anew = Running::with(stage.connector(""), anew).await;
        let other = Running::with(stage.connector(""), other).await;
        drop(anew.connect(ROLE, "postgres").await.unwrap());
        watched.empty().await;
        let status = watched.status().await;
        assert_eq!(status["targets"].as_array().unwrap().len(), 2);
        assert_eq!(status["targets"][0]["sessions"]["total"], 2);
        assert_eq!(status["targets"][0]["sessions"]["limit"], 7);
        assert_eq!(status["targets"][0]["listening"].as_array().unwrap().len(), 2);
        let Running { shutdown, served, proxy, .. } = other;
        shutdown.cancel();
        served.await.unwrap();
        drop(proxy);
        assert_eq!(watched.status().await["targets"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_listener_that_is_given_to_another_target_is_shown_there() {
    run(async {
        let stage = Stage::shared().await;
        let telemetry = Telemetry::new(|| SystemClock.now(), CancellationToken::new(), None);
        let proxy = |name: &str| {
            let options = Options { telemetry: telemetry.target(name), ..Options::default() };
            Arc::new(AuthProxy::new(stage.connector(""), options))
        };
        let current = ProxyHandle::new(proxy("before"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(current.clone().serve(on_loopback(listener), ShutdownTokens::default()));
        let admin = listen(&telemetry, Scope::Admin).await;
        let shown = async |name: &str| {
            let expected = async || {
                let status: Value = serde_json::from_str(&get(admin, "/status.json").await.1).unwrap();
                holds(status, |status| {
                    let targets = status["targets"].as_array().unwrap();
                    let first = &targets[0];
                    targets.len() == 1 && first["name"] == name && first["listening"][0] == *address
                })
            };
            eventually(DEADLINE, &format!("{name:?} is shown with the listener"), expected).await;
        };
        shown("before").await;
        current.replace(proxy("after"));
        shown("after").await;
    });
}

#[test]
fn sessions_that_are_kept_ready_are_shown() {
    run(async {
        let stage = Stage::shared().await;
        let telemetry = Telemetry::new(|| SystemClock.now(), CancellationToken::new(), None);
        let options = Options { warm: 1, telemetry: telemetry.target("t"), ..Options::default() };
        let running = Running::with(stage.connector(""), options).await;
        let admin = listen(&telemetry, Scope::Admin).await;
        let supply = async || {
            let status: Value = serde_json::from_str(&get(admin, "/status.json").await.1).unwrap();
            status["targets"][0]["supply"].clone()
        };
        drop(running.connect(ROLE, "postgres").await.unwrap());
        let ready = async || holds(supply().await, |supply| supply["ready"] == 1);
        eventually(DEADLINE, "one session is ready", ready).await;
        drop(running.connect(ROLE, "postgres").await.unwrap());
        let supply = supply().await;
        assert_eq!((&supply["hits"], &supply["misses"]), (&1.into(), &1.into()), "{supply}");
        let (_, metrics) = get(admin, "/metrics").await;
        assert!(metrics.contains("pgentra_proxy_supply_total{target=\"t\",result=\"hit\"} 1"), "{metrics}");
    });
}
