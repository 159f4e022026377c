//! Several targets behind one listener, and several listeners of one target.

use std::net::SocketAddr;
use std::sync::Arc;

use eventually::{DEADLINE, eventually, holds};
use pgentra_proxy::{AuthProxy, ClientAuth, Options, ProxyHandle, RoutedProxies, ShutdownTokens};
use pgentra_session::{Limits, Route};
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::startup::{ALPN, ProtocolVersion, StartupMessage};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use crate::certificates::Papers;
use crate::fixture::{ROLE, Raw, Stage, on_loopback, one, pid, run};

fn route(databases: &[&str], host_names: &[&str], roles: &[&str]) -> Route {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Route { databases: owned(databases), host_names: owned(host_names), roles: owned(roles) }
}

/// An auth proxy whose sessions show its name.
fn named(stage: &Stage, name: &str, client_auth: ClientAuth) -> Arc<AuthProxy> {
    let connector = stage.connector(&format!("options='-c my.target={name}'"));
    Arc::new(AuthProxy::new(connector, Options { client_auth, ..Options::default() }))
}

async fn served(proxies: impl Into<RoutedProxies>) -> (SocketAddr, ProxyHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handle = ProxyHandle::new(proxies);
    tokio::spawn(handle.clone().serve(on_loopback(listener), ShutdownTokens::default()));
    (address, handle)
}

async fn connect(address: SocketAddr, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(address.port()).user(user).dbname(database);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The name of the target that has the session, or the SQLSTATE of the refusal.
async fn led_to(address: SocketAddr, user: &str, database: &str) -> String {
    match connect(address, user, database).await {
        Ok(client) => one(&client, "SHOW my.target").await,
        Err(error) => error.code().unwrap().code().to_owned(),
    }
}

#[test]
fn clients_are_led_by_database_and_role() {
    run(async {
        let stage = Stage::shared().await;
        let proxy = |name| named(stage, name, ClientAuth::default());
        let one = || RoutedProxies::new(route(&["postgres"], &[], &[]), proxy("one"));
        let two = || route(&["template1"], &[], &[ROLE]);
        let (address, handle) = served(one().and(two(), proxy("two"))).await;
        assert_eq!(led_to(address, ROLE, "postgres").await, "one");
        assert_eq!(led_to(address, ROLE, "template1").await, "two");
        assert_eq!(led_to(address, "another", "template1").await, "3D000");
        let error = connect(address, ROLE, "other").await.err().unwrap();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.message(), "no target of the proxy is for the database \"other\"");
        assert!(error.hint().unwrap().contains("databases, host_names and roles"));
        // The last one takes the clients that fit no other.
        handle.replace(one().and(two(), proxy("two")).and(Route::default(), proxy("the-rest")));
        assert_eq!(led_to(address, ROLE, "postgres").await, "one");
        assert_eq!(led_to(address, ROLE, "template0").await, "55000", "the server's own refusal");
        handle.replace(RoutedProxies::new(route(&[], &[], &["another"]), proxy("by-role")));
        assert_eq!(led_to(address, ROLE, "postgres").await, "28000");
    });
}

#[test]
fn clients_are_led_by_the_host_name_of_their_handshake() {
    run(async {
        let stage = Stage::shared().await;
        let papers = Papers::new();
        let client_auth = ClientAuth { tls: Some(papers.tls(None)), ..ClientAuth::default() };
        let proxy = |name| named(stage, name, client_auth.clone());
        let proxies = RoutedProxies::new(route(&[], &["LocalHost"], &[]), proxy("by-name"));
        let (address, _) = served(proxies.and(Route::default(), proxy("the-rest"))).await;
        for (host, expected) in [("localhost", "by-name"), ("127.0.0.1", "the-rest")] {
            let stream = TcpStream::connect(address).await.unwrap();
            let tls = papers.trusting(None, &[ALPN]).connect(host.try_into().unwrap(), stream);
            let mut client = Raw::new(tls.await.unwrap());
            let start = StartupMessage::new(ProtocolVersion::V3_0, ROLE).unwrap();
            client.start(&start.with("database", "postgres").unwrap()).await;
            client.until_ready().await;
            client.query("DO $$ BEGIN RAISE WARNING '%', current_setting('my.target'); END $$").await;
            let Some(BackendMessage::NoticeResponse(fields)) = client.read().await else {
                panic!("no notice");
            };
            assert_eq!(fields.message(), expected, "{host}");
        }
    });
}

/// A cancel request names no target: its key finds the session.
#[test]
fn a_cancel_request_finds_its_target() {
    run(async {
        let stage = Stage::shared().await;
        let proxy = |name| named(stage, name, ClientAuth::default());
        let proxies = RoutedProxies::new(route(&["template1"], &[], &[]), proxy("one"));
        let (address, _) = served(proxies.and(Route::default(), proxy("two"))).await;
        let client = connect(address, ROLE, "postgres").await.unwrap();
        client.batch_execute("SET application_name = 'in the second target'").await.unwrap();
        let cancel = client.cancel_token();
        let sleeping = tokio::spawn(async move { client.query("SELECT pg_sleep(600)", &[]).await });
        stage.sleeping(&stage.superuser().await, "in the second target").await;
        cancel.cancel_query(NoTls).await.unwrap();
        assert_eq!(sleeping.await.unwrap().unwrap_err().code().unwrap().code(), "57014");
    });
}

/// Each target asks for its own password, although another one has the address too.
#[test]
fn a_target_without_client_authentication_is_not_opened_by_its_neighbour() {
    run(async {
        let stage = Stage::shared().await;
        let users = pgentra_proxy::Users::parse("").unwrap();
        let asking = ClientAuth { users: Some(users), ..ClientAuth::default() };
        let proxies = RoutedProxies::new(route(&["postgres"], &[], &[]), named(stage, "asks", asking));
        let proxies = proxies.and(Route::default(), named(stage, "asks-not", ClientAuth::default()));
        let (address, _) = served(proxies).await;
        let mut config = Config::new();
        config.host("127.0.0.1").port(address.port()).user(ROLE).password("x").ssl_mode(SslMode::Disable);
        let refused = config.dbname("postgres").connect(NoTls).await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "28P01");
        assert_eq!(led_to(address, ROLE, "template1").await, "asks-not");
    });
}

#[test]
fn a_direct_listener_leaves_the_pool_alone() {
    run(async {
        let stage = Stage::shared().await;
        let limits = Limits { connections: 1, ..Limits::default() };
        let options = Options { reuse: true, limits, ..Options::default() };
        let proxy = Arc::new(AuthProxy::new(stage.connector("dbname=postgres"), options));
        let (pooled, _) = served(Arc::clone(&proxy)).await;
        let (direct, _) = served(Arc::new(proxy.direct())).await;
        let kept = async || {
            let ready = async || holds(proxy.supply().ready, |ready| *ready == 1);
            eventually(DEADLINE, "the session is pooled", ready).await;
        };
        let first = connect(pooled, ROLE, "postgres").await.unwrap();
        let process = pid(&first).await;
        drop(first);
        kept().await;
        // It makes room, as for every client, and is not given away.
        let apart = connect(direct, ROLE, "postgres").await.unwrap();
        assert_ne!(pid(&apart).await, process);
        assert_eq!(proxy.supply().ready, 0);
        let process = pid(&apart).await;
        drop(apart);
        let next = async || connect(pooled, ROLE, "postgres").await.ok();
        let next = eventually(DEADLINE, "its place is free", next).await;
        assert_ne!(pid(&next).await, process);
        assert_eq!((proxy.supply().hits, proxy.supply().reused), (0, 1));
    });
}
