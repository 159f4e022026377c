//! How it ends.

use std::time::Duration;

use pgentra_proxy::inject::Naming;
use pgentra_proxy::session::Limits;
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{ROLE, Raw, Running, Stage, one, run};

#[test]
fn a_session_may_end_by_itself() {
    run(async {
        let stage = Stage::shared().await;
        let running = stage.inject("").await;
        let client = running.connect(ROLE, "postgres").await.unwrap();
        running.shutdown.cancel();
        // The listener goes first, the session stays.
        while TcpStream::connect(running.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        drop(client);
        running.served.await.unwrap();
    });
}

#[test]
fn what_does_not_end_is_cut_off() {
    run(async {
        let stage = Stage::shared().await;
        let limits = Limits { drain: Duration::from_millis(1), ..Limits::default() };
        let running = Running::new(stage.connector(""), Naming::Same, limits).await;
        let client = running.connect(ROLE, "postgres").await.unwrap();
        running.shutdown.cancel();
        running.served.await.unwrap();
        assert!(client.query("SELECT 1", &[]).await.is_err());
    });
}

#[test]
fn whoever_is_still_signing_in_is_told() {
    run(async {
        let stage = Stage::shared().await;
        // A server that never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let connector = stage.connector_to(port, "", stage.azure.certificates().pem());
        let running = Running::new(connector, Naming::Same, Limits::default()).await;
        let mut raw = Raw::new(running.dial().await);
        let start =
            pgentra_wire::startup::StartupMessage::new(pgentra_wire::startup::ProtocolVersion::V3_0, ROLE);
        raw.start(&start.unwrap()).await;
        let _asked = silent.accept().await.unwrap();
        running.shutdown.cancel();
        assert_eq!(raw.error().await.sqlstate(), "57P03");
        running.served.await.unwrap();
    });
}
