//! Replaces the auth proxy of a listener that stays open.

use std::sync::Arc;

use pgentra_proxy::{AuthProxy, Naming, ProxyHandle, SharedState, ShutdownTokens};
use pgentra_session::Limits;
use tokio::net::TcpListener;
use tokio_postgres::{Config, NoTls};

use crate::fixture::{ROLE, Stage, on_loopback, one, run, until_unreachable};

#[test]
fn sessions_and_their_cancel_keys_outlive_their_injector() {
    run(async {
        let stage = Stage::shared().await;
        let shared = SharedState::default();
        let proxy = |connections, naming| {
            let limits = Limits { connections, ..Limits::default() };
            let options = pgentra_proxy::Options {
                limits,
                naming,
                shared: shared.clone(),
                ..pgentra_proxy::Options::default()
            };
            Arc::new(AuthProxy::new(stage.connector("dbname=postgres"), options))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let current = ProxyHandle::new(proxy(9, Naming::Same));
        let stop = ShutdownTokens::default();
        let served = tokio::spawn(current.clone().serve(on_loopback(listener), stop.clone()));
        let mut config = Config::new();
        config.host("127.0.0.1").port(address.port()).user(ROLE).dbname("elsewhere");
        assert!(config.connect(NoTls).await.is_err(), "the first one names the database");
        config.dbname("postgres").application_name("outlives its injector");
        let (old, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(shared.sessions(), 1);

        current.replace(proxy(2, Naming::Pinned));
        config.dbname("elsewhere");
        let (new, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(one(&new, "SELECT current_database()::text").await, "postgres");
        // Sessions of both count for the limit.
        let refused = config.connect(NoTls).await.err().unwrap();
        assert_eq!(refused.as_db_error().unwrap().code().code(), "53300");

        let cancel = old.cancel_token();
        let sleeping = tokio::spawn(async move {
            let ended = old.query("SELECT pg_sleep(600)", &[]).await;
            (old, ended)
        });
        stage.sleeping(&stage.superuser().await, "outlives its injector").await;
        cancel.cancel_query(NoTls).await.unwrap();
        let (old, ended) = sleeping.await.unwrap();
        assert_eq!(ended.unwrap_err().code().unwrap().code(), "57014");

        // A closed listener does not end its sessions.
        stop.listening.cancel();
        until_unreachable(address).await;
        assert_eq!(one(&old, "SELECT current_user::text").await, ROLE);
        assert!(!served.is_finished());
        drop((old, new));
        served.await.unwrap();
        assert_eq!(shared.sessions(), 0);
    });
}
