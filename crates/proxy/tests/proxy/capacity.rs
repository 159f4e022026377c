//! Limits on connections: clients that hold no valid sign-in cannot keep others out.

use std::sync::Arc;
use std::time::Duration;

use eventually::{DEADLINE, eventually, holds, within};
use futures_util::future::join_all;
use pgentra_connect::pgentra_identity::Credential;
use pgentra_proxy::{ClientAuth, Listener, Options, Users};
use pgentra_session::{Limits, UnixSocket};
use pgentra_system::{Env, System};
use pgentra_wire::backend::{BackendKeyData, BackendMessage};
use pgentra_wire::startup::{CancelRequest, StartupMessage, encode_ssl_request};
use postgres_protocol::password::scram_sha_256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::certificates::Papers;
use crate::doors::{session, start};
use crate::fixture::{ROLE, Raw, Running, Stage, one, run};
use crate::scripted::Scripted;

const PASSWORD: &str = "correct horse";
const TERMINATE: &[u8] = b"X\0\0\0\x04";

fn bytes_of(start: &StartupMessage) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    start.encode(&mut out);
    out.to_vec()
}

fn ssl_request() -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    encode_ssl_request(&mut out);
    out.to_vec()
}

fn asking() -> ClientAuth {
    let line = format!("\"{ROLE}\" \"{}\"\n", scram_sha_256(PASSWORD.as_bytes()));
    ClientAuth { users: Some(Users::parse(&line).unwrap()), ..ClientAuth::default() }
}

async fn soon<T>(about: &str, it: impl Future<Output = T>) -> T {
    within(DEADLINE, about, it).await
}

/// Waits until the connections of earlier clients are closed.
async fn until_idle(about: &str, running: &Running, idle: usize) {
    eventually(DEADLINE, about, async || holds(Arc::strong_count(&running.proxy), |held| *held <= idle))
        .await;
}

/// When a client hangs up while the proxy dials the server, negotiates TLS or signs in, its permit
/// is free at once, on every transport and after every last message.
#[test]
fn one_that_hangs_up_while_the_server_is_slow_leaves_its_place() {
    run(async {
        let papers = Papers::new();
        for (about, is_encrypted, last) in [
            ("in the clear", false, &b""[..]),
            ("with a farewell", false, TERMINATE),
            ("inside TLS", true, &b""[..]),
            ("inside TLS with a farewell", true, TERMINATE),
        ] {
            let server = Scripted::new().await;
            let limits = Limits { connections: 1, ..Limits::default() };
            let tls = is_encrypted.then(|| papers.tls(None));
            let options = Options {
                limits,
                client_auth: ClientAuth { tls, ..ClientAuth::default() },
                ..Options::default()
            };
            let running = Running::with(server.connector(Stage::shared().await), options).await;
            let idle = Arc::strong_count(&running.proxy);
            let dial = || async {
                let stream = running.dial().await;
                if is_encrypted {
                    Box::new(papers.connect(None, stream).await.unwrap()) as Box<dyn Stream>
                } else {
                    Box::new(stream)
                }
            };
            let leaving = |mut ghost: Raw<Box<dyn Stream>>| async move {
                ghost.stream.write_all(last).await.unwrap();
                ghost.stream.shutdown().await.unwrap();
                drop(ghost);
            };
            // While TLS with the server is pending.
            let mut ghost = Raw::new(dial().await);
            ghost.start(&start(ROLE)).await;
            let (mut waiting, _) = server.tcp().await;
            leaving(ghost).await;
            soon(about, waiting.read_to_end(&mut Vec::new())).await.unwrap();
            until_idle(about, &running, idle).await;
            // Before the server has accepted the sign-in.
            let mut ghost = Raw::new(dial().await);
            ghost.start(&start(ROLE)).await;
            let mut waiting = server.accept().await;
            waiting.start_up().await;
            leaving(ghost).await;
            let _ = soon(about, waiting.stream.read_to_end(&mut Vec::new())).await;
            until_idle(about, &running, idle).await;
            let mut next = Raw::new(dial().await);
            next.start(&start(ROLE)).await;
            let served = server.session(7).await;
            soon(about, next.until_ready()).await;
            drop((next, served));
        }
    });
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Bytes that a client sends before its session is ready reach the server, also if the client
/// closes its sending side after them.
#[test]
fn what_is_sent_early_is_not_lost() {
    run(async {
        for closes in [false, true] {
            let server = Scripted::new().await;
            let running = Running::with(server.connector(Stage::shared().await), Options::default()).await;
            let mut client = Raw::new(running.dial().await);
            client.start(&start(ROLE)).await;
            client.query("SELECT 'early'").await;
            if closes {
                client.stream.shutdown().await.unwrap();
            }
            let mut served = server.session(7).await;
            soon("the session", client.until_ready()).await;
            soon("the query", served.expect(b"Q\0\0\0\x13SELECT 'early'\0")).await;
        }
    });
}

/// Three hundred clients hang up while a metadata service does not answer: the next client waits
/// for the service and gets its error.
#[test]
fn ghosts_do_not_keep_places_while_there_is_no_token() {
    run(async {
        let stage = Stage::shared().await;
        let metadata = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", metadata.local_addr().unwrap());
        let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]);
        let credential = Credential::builder(System::builder().env(env).build()).build().unwrap();
        let answer = CancellationToken::new();
        let may_answer = answer.clone();
        let answering = tokio::spawn(async move {
            loop {
                let (mut stream, _) = metadata.accept().await.unwrap();
                let may_answer = may_answer.clone();
                tokio::spawn(async move {
                    may_answer.cancelled().await;
                    let refusal =
                        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(refusal).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        let running = Running::with(stage.connector_with(credential), Options::default()).await;
        let idle = Arc::strong_count(&running.proxy);
        for _ in 0..300 {
            let mut ghost = Raw::new(running.dial().await);
            ghost.start(&start(ROLE)).await;
        }
        until_idle("300 ghosts", &running, idle).await;
        let mut next = Raw::new(running.dial().await);
        next.start(&start(ROLE)).await;
        answer.cancel();
        let refused = soon("the next client", next.error()).await;
        assert_ne!(refused.sqlstate(), "53300", "{refused}");
        answering.abort();
    });
}

/// A client that hangs up while `connect_rate` makes it wait has used neither a permit nor a turn.
#[test]
fn ghosts_in_the_queue_for_new_connections_use_no_turn() {
    run(async {
        let server = Scripted::new().await;
        let limits = Limits { connections: 2, ..Limits::default() };
        let options = Options { limits, connect_rate: 1, ..Options::default() };
        let running = Running::with(server.connector(Stage::shared().await), options).await;
        let idle = Arc::strong_count(&running.proxy);
        let mut first = Raw::new(running.dial().await);
        first.start(&start(ROLE)).await;
        let served = server.session(1).await;
        first.until_ready().await;
        for _ in 0..30 {
            let mut ghost = Raw::new(running.dial().await);
            ghost.start(&start(ROLE)).await;
            drop(ghost);
            // The first client's session holds one more.
            until_idle("a ghost", &running, idle + 1).await;
        }
        let mut next = Raw::new(running.dial().await);
        next.start(&start(ROLE)).await;
        let second = server.session(2).await;
        soon("the next client", next.until_ready()).await;
        drop((served, second));
    });
}

/// Clients that stop at any step before authentication do not keep out a client that authenticates.
#[test]
fn clients_that_come_to_a_halt_give_way() {
    run(async {
        let papers = Papers::new();
        let hour = Duration::from_secs(3600);
        let mut hello = vec![0x16, 3, 1, 2, 0];
        hello.resize(200, 1);
        let packet = bytes_of(&start(ROLE));
        let cases = [
            ("a TLS handshake that does not begin", true, ssl_request()),
            ("one that stops in its first record", true, [ssl_request(), hello.clone()].concat()),
            ("one without a request", true, hello),
            ("a start-up packet that stops", false, packet[..packet.len() - 1].to_vec()),
            ("SCRAM that does not begin", false, packet),
        ];
        let papers = &papers;
        join_all(cases.into_iter().map(|(about, is_encrypted, said)| async move {
            let tls = is_encrypted.then(|| papers.tls(None));
            let limits = Limits { starting: 4, start_up: hour, first_packet: hour, ..Limits::default() };
            let options =
                Options { limits, client_auth: ClientAuth { tls, ..asking() }, ..Options::default() };
            let running = Running::with(Stage::shared().await.connector(""), options).await;
            let mut halted = Vec::new();
            for _ in 0..12 {
                let mut stream = running.dial().await;
                stream.write_all(&said).await.unwrap();
                halted.push(stream);
            }
            let stream = running.dial().await;
            let client = if is_encrypted {
                let stream = soon(about, papers.connect(None, stream)).await.unwrap();
                soon(about, session(stream, ROLE, PASSWORD)).await.unwrap()
            } else {
                soon(about, session(stream, ROLE, PASSWORD)).await.unwrap()
            };
            assert_eq!(one(&client, "SELECT current_user::text").await, ROLE, "{about}");
        }))
        .await;
    });
}

/// Of the silent clients, the oldest gets the error "too many clients", and a client that sends its
/// start-up is served at once.
#[test]
fn the_oldest_silent_client_makes_room() {
    run(async {
        let hour = Duration::from_secs(3600);
        let limits = Limits { waiting: 8, start_up: hour, first_packet: hour, ..Limits::default() };
        let options = Options { limits, client_auth: asking(), ..Options::default() };
        let running = Running::with(Stage::shared().await.connector(""), options).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(Raw::new(running.dial().await));
        }
        let client = soon("one that speaks", session(running.dial().await, ROLE, PASSWORD)).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        let told = soon("the oldest", silent[0].error()).await;
        assert_eq!(told.sqlstate(), "53300", "{told}");
        assert!(told.hint().is_some());
        // The last of them still has its place.
        silent[19].start(&start(ROLE)).await;
        assert!(matches!(soon("the last", silent[19].read()).await, Some(BackendMessage::Authentication(_))));
    });
}

/// Load at one listener closes no connection of another listener of the same target.
#[test]
fn listeners_are_apart() {
    run(async {
        let papers = Papers::new();
        let hour = Duration::from_secs(3600);
        let limits = Limits { starting: 1, waiting: 1, start_up: hour, ..Limits::default() };
        let options = Options {
            limits,
            client_auth: ClientAuth { tls: Some(papers.tls(None)), ..ClientAuth::default() },
            ..Options::default()
        };
        let running = Running::with(Stage::shared().await.connector(""), options).await;
        let folder = std::env::temp_dir().join(format!("pgentra-inject-{}-apart", std::process::id()));
        let socket = UnixSocket::bind(&folder, 5432).unwrap();
        let path = socket.path().to_owned();
        tokio::spawn(Arc::clone(&running.proxy).serve(Listener::Unix(socket), running.shutdown.clone()));
        let mut halted = running.dial().await;
        halted.write_all(&ssl_request()).await.unwrap();
        assert_eq!(halted.read_u8().await.unwrap(), b'S');
        let _silent = running.dial().await;
        // Sooner than any connection has to be closed.
        let client = tokio::time::timeout(
            Duration::from_secs(2),
            session(UnixStream::connect(path).await.unwrap(), ROLE, ""),
        );
        let client = client.await.expect("a client of the socket is served at once").unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        running.shutdown.cancel();
        drop(client);
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

/// Passwords that come at once are checked no faster than one by one, and the right one is accepted
/// right after.
#[test]
fn guessing_at_once_is_no_faster_and_shuts_nobody_out() {
    run(async {
        let running = Running::behind(asking()).await;
        let began = Instant::now();
        let guess = |number: usize| {
            let running = &running;
            async move {
                let guess = format!("guess {number}");
                let error = session(running.dial().await, ROLE, &guess).await.unwrap_err();
                error.code().unwrap().code().to_owned()
            }
        };
        let told = soon("the guesses", join_all((0..120).map(guess))).await;
        let looked_at = told.iter().filter(|code| *code == "28P01").count();
        assert!(told.iter().all(|code| code == "28P01" || code == "28000"), "{told:?}");
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(looked_at <= 12 + seconds, "{looked_at} within {seconds} s");
        let began = Instant::now();
        let client = soon("the right password", session(running.dial().await, ROLE, PASSWORD)).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    });
}

async fn cancel(running: &Running, key: &CancelRequest) -> TcpStream {
    let mut stream = running.dial().await;
    let mut out = bytes::BytesMut::new();
    key.encode(&mut out);
    stream.write_all(&out).await.unwrap();
    stream
}

/// Three hundred requests with one valid key are forwarded as two, and every client is answered.
#[test]
fn a_storm_of_cancel_requests_opens_two_connections() {
    run(async {
        let server = Scripted::new().await;
        let running = Running::with(server.connector(Stage::shared().await), Options::default()).await;
        let mut client = Raw::new(running.dial().await);
        client.start(&start(ROLE)).await;
        let _served = server.session(7).await;
        let greeting = client.until_ready().await;
        let key = greeting.into_iter().find_map(|message| match message {
            BackendMessage::BackendKeyData(BackendKeyData { process_id, key }) => {
                Some(CancelRequest { process_id, key })
            }
            _ => None,
        });
        let key = key.unwrap();
        let first = cancel(&running, &key).await;
        let mut passed_on = server.accept().await;
        passed_on.cancel_request().await;
        let mut others = Vec::new();
        for _ in 0..299 {
            others.push(cancel(&running, &key).await);
        }
        // Most clients need not wait for a request of their own: a later one covers it.
        let mut answered = futures_util::stream::FuturesUnordered::new();
        for mut stream in others {
            answered.push(async move { stream.read(&mut [0]).await.unwrap() });
        }
        for _ in 0..283 {
            soon("those that need not wait", futures_util::StreamExt::next(&mut answered)).await.unwrap();
        }
        drop(passed_on);
        let mut second = server.accept().await;
        second.cancel_request().await;
        drop(second);
        while soon("the rest", futures_util::StreamExt::next(&mut answered)).await.is_some() {}
        let mut first = first;
        assert_eq!(soon("the first", first.read(&mut [0])).await.unwrap(), 0);
        // The next connection is the next client's.
        let mut next = Raw::new(running.dial().await);
        next.start(&start(ROLE)).await;
        let _served = soon("no third request", server.session(8)).await;
        soon("the next client", next.until_ready()).await;
    });
}
