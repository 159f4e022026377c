//! sqlx and tokio-postgres through the auth proxy, without a password: no adapter, no token in the
//! program.

use std::sync::Arc;
use std::time::Duration;

use pgentra_emulator::{Endpoint, Fault};
use pgentra_proxy::{AuthProxy, ClientAuth, Listener, Options};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Cloud, LEEWAY, LIFETIME, ROLE};

/// Connections of a small program.
const CONNECTIONS: u32 = 10;

struct Proxy {
    port: u16,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Proxy {
    async fn start(cloud: &Cloud) -> Proxy {
        let proxy = Arc::new(AuthProxy::new(cloud.connector(ROLE), Options::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let listener = Listener::tcp(listener, &ClientAuth::default()).unwrap();
        let served = tokio::spawn(proxy.serve(listener, shutdown.clone()));
        Proxy { port, shutdown, served }
    }

    fn sqlx(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port);
        options.username(ROLE).database("postgres").ssl_mode(PgSslMode::Disable)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.served.await.unwrap();
    }
}

/// The database's own code for what sqlx was told.
fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

#[tokio::test]
async fn a_plain_pool_lives_through_three_token_lifetimes() {
    let cloud = Cloud::start().await;
    let proxy = Proxy::start(&cloud).await;
    let pool: PgPool =
        PgPoolOptions::new().max_connections(CONNECTIONS).connect_with(proxy.sqlx()).await.unwrap();
    for lifetime in 0..3 {
        let mut held = Vec::new();
        for number in 0..CONNECTIONS {
            let mut connection = pool.acquire().await.unwrap();
            // Prepared, with a parameter and a row in the binary format.
            let next: i32 =
                sqlx::query_scalar("SELECT $1::int + 1").bind(41).fetch_one(&mut *connection).await.unwrap();
            assert_eq!(next, 42, "connection {number} in lifetime {lifetime}");
            held.push(connection);
        }
        drop(held);
        // New sessions need a new token: the old ones are ended, and the token as well.
        cloud.pass(LIFETIME + LEEWAY).await;
        cloud.end_sessions().await;
    }
    let error = sqlx::query("SELECT 1/0").execute(&pool).await.unwrap_err();
    assert_eq!(sqlstate(&error).as_deref(), Some("22012"), "{error:?}");
    pool.close().await;
    proxy.stop().await;
    cloud.stop().await;
}

/// The metadata service is down for longer than a token lives: sessions go on, clients get the
/// reason, and everything works when it is back.
#[tokio::test]
async fn azure_is_gone_for_longer_than_a_token_lives() {
    let cloud = Cloud::start().await;
    let proxy = Proxy::start(&cloud).await;
    let mut early = PgConnection::connect_with(&proxy.sqlx()).await.unwrap();
    // An answer that no source retries, because the test must not wait for retries.
    let gone = Fault::status(
        400,
        r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist"}"#,
    );
    cloud.azure().faults().push_lasting(Endpoint::ImdsToken, gone);
    // The cached token is still valid and is used, although no newer one can be obtained.
    cloud.pass(LIFETIME / 2).await;
    PgConnection::connect_with(&proxy.sqlx()).await.unwrap().close().await.unwrap();
    cloud.pass(LIFETIME + LEEWAY).await;
    for _ in 0..3 {
        let error = PgConnection::connect_with(&proxy.sqlx()).await.unwrap_err();
        assert_eq!(sqlstate(&error).as_deref(), Some("28000"), "{error:?}");
        assert!(error.to_string().contains("token"), "{error}");
    }
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut early).await.unwrap();
    assert_eq!(one, 1, "a session does not end with its token");
    cloud.azure().faults().clear();
    // A failed request is not repeated at once.
    cloud.pass(Duration::from_secs(120)).await;
    PgConnection::connect_with(&proxy.sqlx()).await.unwrap().close().await.unwrap();
    early.close().await.unwrap();
    proxy.stop().await;
    cloud.stop().await;
}

#[tokio::test]
async fn the_server_is_restarted() {
    let mut cloud = Cloud::start().await;
    let proxy = Proxy::start(&cloud).await;
    let dsn = format!("host=127.0.0.1 port={} user={ROLE} dbname=postgres", proxy.port);
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
    let ended = tokio::spawn(connection);
    let sleeping = client.query_one("SELECT pg_sleep(100)", &[]);
    let (lost, ()) = tokio::join!(sleeping, cloud.restart());
    // The client gets the server's error or the end of the connection.
    let lost = lost.unwrap_err();
    assert!(lost.is_closed() || lost.code().is_some_and(|code| code.code() == "57P01"), "{lost:?}");
    assert!(ended.await.unwrap().is_err() || client.is_closed());
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
    tokio::spawn(connection);
    let role: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, ROLE);
    drop(client);
    proxy.stop().await;
    cloud.stop().await;
}
