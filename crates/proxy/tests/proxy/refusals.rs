//! Each accepted client that gets no session gets an error with the reason.

use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_connect::Connector;
use pgentra_connect::pgentra_identity::{Cloud, Credential};
use pgentra_proxy::Naming;
use pgentra_session::Limits;
use pgentra_system::{Env, System};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::fixture::{ROLE, Raw, Running, Stage, UNMAPPED, run};

/// Invariant 8: an ErrorResponse with a SQLSTATE and a hint, in the server's words where they are the server's.
#[test]
fn each_refusal_has_a_sqlstate_and_a_hint() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let token = stage.token().await;
        for (user, database, code, message, hint) in [
            (UNMAPPED, "postgres", "28000", "is not mapped to Entra", "pgaadauth_create_principal_with_oid"),
            (ROLE, "nowhere", "3D000", "database \"nowhere\" does not exist", "there is no database"),
        ] {
            let refusal = running.refusal(user, database).await;
            assert_eq!(refusal.code().code(), code, "{refusal:?}");
            assert!(refusal.message().contains(message), "{refusal:?}");
            assert!(refusal.hint().unwrap().contains(hint), "{refusal:?}");
            assert!(!format!("{refusal:?}").contains(&token));
        }
    });
}

#[test]
fn an_oid_that_does_not_match_is_told_in_azures_words() {
    run(async {
        let stage = Stage::shared().await;
        let other = stage.azure.user_assigned().client_id().to_string();
        let env = Env::from_map([
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", stage.azure.metadata_url()),
            ("AZURE_CLIENT_ID", &other),
        ]);
        let credential = Credential::builder(System::builder().env(env).build()).build().unwrap();
        let target = stage.connector("").target().clone();
        let connector = Connector::new(target, credential, Cloud::Public.postgres_resource()).unwrap();
        let running = Running::new(connector, Naming::Same, Limits::default()).await;
        let refusal = running.refusal(ROLE, "postgres").await;
        assert!(refusal.message().to_lowercase().contains("oid mismatch for role"), "{refusal:?}");
        let hint = refusal.hint().unwrap();
        assert!(hint.contains(&stage.azure.user_assigned().object_id().to_string()), "{hint}");
    });
}

#[test]
fn no_token_no_name_no_answer() {
    run(async {
        let stage = Stage::shared().await;
        // A port on which no process listens any more.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let roots = stage.azure.certificates().pem();
        let unreachable = stage.connector_to(gone, "", roots);
        // A metadata service that does not answer.
        let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://127.0.0.1:{gone}"))]);
        let credential = Credential::builder(System::builder().env(env).build())
            .deadline(Duration::from_millis(1))
            .build()
            .unwrap();
        let target = stage.connector("").target().clone();
        let no_token = Connector::new(target, credential, Cloud::Public.postgres_resource()).unwrap();
        let no_name = stage.connector_to(gone, "host=no-such-host.invalid hostaddr=''", roots);
        for (connector, code, message) in [
            (unreachable, "08001", "no connection to 127.0.0.1"),
            (no_token, "28000", "no access token"),
            (no_name, "08001", "no-such-host.invalid"),
        ] {
            let running = Running::new(connector, Naming::Same, Limits::default()).await;
            let refusal = running.refusal(ROLE, "postgres").await;
            assert_eq!(refusal.code().code(), code, "{refusal:?}");
            assert!(refusal.message().contains(message), "{refusal:?}");
            assert!(refusal.detail().is_some() && refusal.hint().is_some(), "{refusal:?}");
        }
    });
}

#[test]
fn a_client_too_many_is_told_so_and_a_free_place_is_used_again() {
    run(async {
        let stage = Stage::shared().await;
        let limits = Limits { connections: 1, ..Limits::default() };
        let running = Running::new(stage.connector(""), Naming::Same, limits).await;
        let first = running.connect(ROLE, "postgres").await.unwrap();
        let refusal = running.refusal(ROLE, "postgres").await;
        assert_eq!(refusal.code().code(), "53300");
        assert!(refusal.detail().is_some() && refusal.hint().is_some(), "{refusal:?}");
        drop(first);
        let connect = async || running.connect(ROLE, "postgres").await;
        eventually(DEADLINE, "a client takes the free place", connect).await;
    });
}

#[test]
fn a_client_that_says_nothing_is_told_that_its_time_is_over() {
    run(async {
        let stage = Stage::shared().await;
        let limits = Limits { start_up: Duration::from_millis(1), starting: 1, ..Limits::default() };
        let running = Running::new(stage.connector(""), Naming::Same, limits).await;
        for begun in [&b""[..], b"\0\0\0\x50\0\x03"] {
            let mut raw = Raw::new(running.dial().await);
            tokio::io::AsyncWriteExt::write_all(&mut raw.stream, begun).await.unwrap();
            assert_eq!(raw.error().await.sqlstate(), "57014");
        }
    });
}

#[test]
fn direct_tls_where_there_is_none_is_hung_up_on() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let mut stream = running.dial().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x16").await.unwrap();
        // The byte is left unread, so the end may come as a reset.
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    });
}
