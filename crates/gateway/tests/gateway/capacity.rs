//! Limits on connections: clients that are not authenticated cannot keep others out.

use std::time::Duration;

use eventually::{DEADLINE, within};
use pgentra_wire::backend::{Authentication, BackendMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{Stage, one, run};
use crate::raw::Raw;
use crate::start_up::start;

const HOUR: Duration = Duration::from_secs(3600);

async fn soon<T>(about: &str, it: impl Future<Output = T>) -> T {
    within(DEADLINE, about, it).await
}

/// Silent clients, and clients that stop in the TLS handshake, are closed to make room for one with
/// a token.
#[test]
fn clients_that_come_to_a_halt_give_way() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage
            .gateway_with(|config| {
                config.limits.waiting = 16;
                config.limits.starting = 4;
                (config.limits.start_up, config.limits.first_packet) = (HOUR, HOUR);
            })
            .await;
        let mut halted = Vec::new();
        for _ in 0..8 {
            let mut stream = gateway.dial().await;
            stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
            halted.push(stream);
        }
        for _ in 0..30 {
            halted.push(gateway.dial().await);
        }
        let administrator = soon("a client with a token", stage.administrator(&gateway)).await;
        assert_eq!(one(&administrator, "SELECT 'in'").await, "in");
    });
}

/// Only a client that has authenticated takes a session permit, with a token or with a password.
#[test]
fn a_client_that_does_not_say_its_password_takes_no_place() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway_with(|config| config.limits.connections = 1).await;
        stage.superuser().await.batch_execute("CREATE ROLE halting LOGIN PASSWORD 'x'").await.unwrap();
        let mut halted = Raw::new(gateway.dial_tls().await);
        halted.start(&start("halting")).await;
        let asked = halted.read().await;
        assert!(matches!(asked, Some(BackendMessage::Authentication(Authentication::Sasl(_)))), "{asked:?}");
        let administrator = soon("a client with a token", stage.administrator(&gateway)).await;
        assert_eq!(one(&administrator, "SELECT 'in'").await, "in");
    });
}

/// The first packet has its own time limit, and so has each answer to the server.
#[test]
fn a_client_that_halts_at_its_password_is_told_so() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway_with(|config| config.limits.first_packet = Duration::from_secs(1)).await;
        stage.superuser().await.batch_execute("CREATE ROLE slow_typist LOGIN PASSWORD 'x'").await.unwrap();
        let mut halted = Raw::new(gateway.dial_tls().await);
        halted.start(&start("slow_typist")).await;
        halted.read().await.unwrap();
        let error = soon("the end", halted.error()).await;
        assert_eq!(error.sqlstate(), "57014");
        let mut silent = gateway.dial().await;
        let mut told = Vec::new();
        soon("the end", silent.read_to_end(&mut told)).await.unwrap();
        assert!(String::from_utf8_lossy(&told).contains("57014"), "{told:?}");
    });
}
