//! SCRAM-SHA-256 with the users file.

use std::time::Duration;

use futures_util::future::join_all;
use pgentra_proxy::{ClientAuth, Options, RoleMap, Users};
use pgentra_session::Limits;
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::frontend::{SaslInitialResponse, encode_sasl_response};
use postgres_protocol::password::scram_sha_256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::Papers;
use crate::doors::{session, start};
use crate::fixture::{ROLE, Raw, Running, Stage, one, run};

const PASSWORD: &str = "correct horse";

fn users(entries: &[(&str, &str)]) -> Users {
    let line =
        |(role, password): &(&str, &str)| format!("\"{role}\" \"{}\"\n", scram_sha_256(password.as_bytes()));
    Users::parse(&entries.iter().map(line).collect::<String>()).unwrap()
}

fn asking() -> ClientAuth {
    ClientAuth { users: Some(users(&[(ROLE, PASSWORD)])), ..ClientAuth::default() }
}

async fn refusal(running: &Running, user: &str, password: &str) -> tokio_postgres::error::DbError {
    let error = session(running.dial().await, user, password).await.unwrap_err();
    error.as_db_error().expect("an ErrorResponse").clone()
}

#[test]
fn only_the_right_password_opens() {
    run(async {
        let running = Running::behind(asking()).await;
        let client = session(running.dial().await, ROLE, PASSWORD).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        // The error does not show whether the role or the password was wrong.
        for (user, password) in [(ROLE, "wrong"), ("unknown_role", PASSWORD), ("unknown_role", "wrong")] {
            let refused = refusal(&running, user, password).await;
            assert_eq!(refused.code().code(), "28P01", "{refused:?}");
            assert_eq!(refused.message(), format!("password authentication failed for user \"{user}\""));
            assert!(refused.hint().is_some());
        }
        // A client without a password gets its driver's error.
        let error = running.connect(ROLE, "postgres").await.err().unwrap();
        assert!(format!("{error:?}").contains("password missing"), "{error:?}");
    });
}

#[test]
fn one_who_guesses_has_to_wait_and_others_do_not() {
    run(async {
        let client_auth =
            ClientAuth { users: Some(users(&[(ROLE, PASSWORD), ("other", "x")])), ..ClientAuth::default() };
        let client_auth =
            ClientAuth { roles: Some(RoleMap::from_iter([(ROLE, ROLE), ("other", ROLE)])), ..client_auth };
        let running = Running::behind(client_auth).await;
        for _ in 0..10 {
            // Typing errors.
            assert_eq!(refusal(&running, ROLE, "guess").await.code().code(), "28P01");
        }
        let guesses = join_all((0..30).map(|_| refusal(&running, ROLE, "guess"))).await;
        let refused = guesses.iter().find(|refused| refused.code().code() != "28P01").unwrap();
        assert_eq!(refused.code().code(), "28000", "{refused:?}");
        assert!(refused.message().contains("too many wrong passwords"), "{refused:?}");
        assert!(refused.hint().unwrap().contains("Try again in"), "{refused:?}");
        session(running.dial().await, "other", "x").await.unwrap();
    });
}

#[test]
fn the_password_is_that_of_the_role_before_the_map() {
    run(async {
        let client_auth =
            ClientAuth { users: Some(users(&[("app", PASSWORD), (ROLE, "other")])), ..ClientAuth::default() };
        let running =
            Running::behind(ClientAuth { roles: Some(RoleMap::from_iter([("app", ROLE)])), ..client_auth })
                .await;
        let client = session(running.dial().await, "app", PASSWORD).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        assert_eq!(refusal(&running, "app", "other").await.code().code(), "28P01");
        // The role map is applied only after the password was checked.
        assert_eq!(refusal(&running, ROLE, PASSWORD).await.code().code(), "28P01");
        assert!(refusal(&running, ROLE, "other").await.message().contains("role_map"));
    });
}

#[test]
fn another_file_is_for_new_clients() {
    run(async {
        let running = Running::behind(asking()).await;
        let client = session(running.dial().await, ROLE, PASSWORD).await.unwrap();
        running
            .proxy
            .set_client_auth(ClientAuth { users: Some(users(&[(ROLE, "new")])), ..ClientAuth::default() });
        assert_eq!(refusal(&running, ROLE, PASSWORD).await.code().code(), "28P01");
        session(running.dial().await, ROLE, "new").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        running
            .proxy
            .set_client_auth(ClientAuth { users: Some(Users::parse("").unwrap()), ..ClientAuth::default() });
        assert_eq!(refusal(&running, ROLE, "new").await.code().code(), "28P01");
    });
}

/// A client that leaves out a step is refused.
#[test]
fn an_exchange_that_is_not_one_is_refused() {
    run(async {
        let running = Running::behind(asking()).await;
        let initial = |mechanism: &str, data: &str| {
            let mut out = bytes::BytesMut::new();
            SaslInitialResponse { mechanism: mechanism.as_bytes(), data: Some(data.as_bytes()) }
                .encode(&mut out)
                .unwrap();
            out
        };
        let mut password = bytes::BytesMut::new();
        pgentra_wire::frontend::encode_password(PASSWORD.as_bytes(), &mut password).unwrap();
        for (about, message) in [
            ("the password itself", password),
            ("another mechanism", initial("PLAIN", "")),
            (
                "channel binding, which is not offered",
                initial("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=a"),
            ),
            (
                "channel binding with the other mechanism",
                initial("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=a"),
            ),
            ("an identity", initial("SCRAM-SHA-256", "n,a=root,n=,r=a")),
            ("no nonce", initial("SCRAM-SHA-256", "n,,n=,r=")),
            ("a query", bytes::BytesMut::from(&b"Q\0\0\0\x09SELECT\0"[..])),
        ] {
            let mut raw = Raw::new(running.dial().await);
            raw.start(&start(ROLE)).await;
            let asked = raw.read().await.unwrap();
            let BackendMessage::Authentication(Authentication::Sasl(mechanisms)) = asked else {
                panic!("{asked:?}");
            };
            assert_eq!(
                mechanisms.iter().collect::<Vec<_>>(),
                [b"SCRAM-SHA-256"],
                "nothing is bound without TLS"
            );
            raw.stream.write_all(&message).await.unwrap();
            assert_eq!(raw.error().await.sqlstate(), "08P01", "{about}");
        }
        // The last message without its first, and an answer that belongs to another exchange.
        let mut raw = Raw::new(running.dial().await);
        raw.start(&start(ROLE)).await;
        raw.read().await.unwrap();
        raw.stream.write_all(&initial("SCRAM-SHA-256", "y,,n=,r=abc")).await.unwrap();
        raw.read().await.unwrap();
        let mut out = bytes::BytesMut::new();
        encode_sasl_response(b"c=eSws,r=abc,p=AAAA", &mut out).unwrap();
        raw.stream.write_all(&out).await.unwrap();
        assert_eq!(raw.error().await.sqlstate(), "08P01");
    });
}

/// When a client hangs up at any step, its permit is free at once.
#[test]
fn a_client_that_vanishes_frees_its_place() {
    run(async {
        let papers = Papers::new();
        let client_auth = ClientAuth { tls: Some(papers.tls(None)), ..asking() };
        let limits = Limits { starting: 1, start_up: Duration::from_secs(3600), ..Limits::default() };
        let options = Options { client_auth, limits, ..Options::default() };
        let running = Running::with(Stage::shared().await.connector(""), options).await;
        drop(running.dial().await);
        let mut in_handshake = running.dial().await;
        let mut request = bytes::BytesMut::new();
        pgentra_wire::startup::encode_ssl_request(&mut request);
        in_handshake.write_all(&request).await.unwrap();
        assert_eq!(in_handshake.read_u8().await.unwrap(), b'S');
        drop(in_handshake);
        let mut asked = Raw::new(papers.connect(None, running.dial().await).await.unwrap());
        asked.start(&start(ROLE)).await;
        asked.read().await.unwrap();
        drop(asked);
        let stream = papers.connect(None, running.dial().await).await.unwrap();
        let client = session(stream, ROLE, PASSWORD).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
    });
}

#[test]
fn psql_binds_its_password_to_the_certificate() {
    run(async {
        let papers = Papers::new();
        let running = Running::behind(ClientAuth { tls: Some(papers.tls(None)), ..asking() }).await;
        let folder = std::env::temp_dir().join(format!("pgentra-inject-{}-papers", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), papers.pem()).unwrap();
        let conninfo = format!(
            "host=localhost port={} user={ROLE} dbname=postgres sslmode=verify-full sslrootcert={}/ca.pem",
            running.address.port(),
            folder.display()
        );
        for (password, more, code, said) in [
            (PASSWORD, "", 0, ROLE),
            (PASSWORD, "channel_binding=require", 0, ROLE),
            (PASSWORD, "channel_binding=disable", 0, ROLE),
            ("wrong", "", 2, "FATAL:  password authentication failed for user \"myuser\""),
            (PASSWORD, "sslmode=disable", 2, "requires TLS"),
        ] {
            let mut command = tokio::process::Command::new("psql");
            command.args(["-XAtw", "-c", "SELECT current_user", &format!("{conninfo} {more}")]);
            command.env("PGPASSWORD", password);
            for name in ["PGSSLMODE", "PGSSLROOTCERT", "PGHOSTADDR", "PGSERVICE", "PGOPTIONS"] {
                command.env_remove(name);
            }
            match command.output().await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    eprintln!("SKIPPED psql, which is not here: cargo xtask test installs it");
                }
                output => {
                    let output = output.unwrap();
                    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
                    assert!(text.contains(said), "{more}: {text}");
                    assert_eq!(output.status.code(), Some(code), "{more}: {text}");
                }
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
