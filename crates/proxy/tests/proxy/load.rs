//! Many clients connect at the same time.

use std::sync::Arc;
use std::time::Duration;

use eventually::{DEADLINE, eventually, holds};
use futures_util::future::join_all;
use pgentra_emulator::Endpoint;
use pgentra_proxy::Naming;
use pgentra_session::Limits;

use crate::fixture::{ROLE, Running, Stage, one, run};

const CLIENTS: usize = 500;

#[test]
fn five_hundred_clients_cause_one_token_request() {
    run(async {
        // A separate fixture, so that no other test asks for tokens.
        let stage = Stage::new().await;
        let running = storm(&stage, "the first token").await;
        // Every token has expired, and all clients come back at once.
        stage.clock().advance(Duration::from_secs(25 * 60 * 60));
        running.shutdown.cancel();
        running.served.await.unwrap();
        storm(&stage, "a token that has expired").await;
    });
}

/// All clients connect, and each gets a session or the error "too many clients".
async fn storm(stage: &Stage, about: &str) -> Running {
    stage.azure.journal().clear();
    // PostgreSQL takes a hundred at once; the others wait at the listener, with no token yet.
    let limits = Limits { connections: CLIENTS, starting: 80, ..Limits::default() };
    let running = Running::new(stage.connector(""), Naming::Same, limits).await;
    let clients = join_all((0..CLIENTS).map(|_| running.connect(ROLE, "postgres"))).await;
    let (mut sessions, mut refused) = (0, 0);
    for client in &clients {
        match client {
            Ok(client) => {
                assert_eq!(one(client, "SELECT current_user::text").await, ROLE);
                sessions += 1;
            }
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(sessions + refused, CLIENTS);
    assert!(sessions > 50, "{sessions} sessions");
    let requests = stage.azure.journal().count(Endpoint::ImdsToken);
    assert_eq!(requests, 1, "{about}: {:?}", stage.azure.journal().entries());
    running
}

/// Every client is answered, and no memory or permit is left in use.
#[test]
fn two_thousand_clients_in_a_burst_are_all_told() {
    run(async {
        const BURST: usize = 2_000;
        let stage = Stage::shared().await;
        let limits = Limits { connections: 1, ..Limits::default() };
        let running = Running::new(stage.connector(""), Naming::Same, limits).await;
        let idle = Arc::strong_count(&running.proxy);
        let only = running.connect(ROLE, "postgres").await.unwrap();
        let told = join_all((0..BURST).map(|_| running.refusal(ROLE, "postgres"))).await;
        assert!(told.iter().all(|refusal| refusal.code().code() == "53300"));
        assert_eq!(one(&only, "SELECT current_user::text").await, ROLE);
        drop(only);
        // Each connection holds its proxy: once none does, memory and permits are free.
        let held = async || holds(Arc::strong_count(&running.proxy), |held| *held <= idle);
        eventually(DEADLINE, "every connection of the burst is released", held).await;
        running.connect(ROLE, "postgres").await.unwrap();
    });
}
