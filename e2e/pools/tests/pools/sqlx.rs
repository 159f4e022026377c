use std::sync::Arc;
use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_connect::adapter::sqlx::Pool;
use pgentra_connect::{ConnectError, ConnectErrorKind, Connector, TlsFailure};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::cloud::{Cloud, LEEWAY, LIFETIME, OTHER_ROLE, ROLE};
use crate::life::{self, AnyError, CONNECTIONS, PROCESS};

/// sqlx's own pool, to which only the renewal task gives tokens.
pub(crate) struct Renewed {
    pub(crate) pool: Pool,
    options: std::sync::Mutex<Arc<PgConnectOptions>>,
}

impl Renewed {
    pub(crate) async fn new(connector: Connector) -> Renewed {
        let pool = pool(connector).await.unwrap();
        let options = pool.pool().connect_options();
        Renewed { pool, options: options.into() }
    }

    /// Returns when the options of future connections are others.
    pub(crate) async fn wait(&self) {
        let before = self.options.lock().unwrap().clone();
        let renewed = async || !Arc::ptr_eq(&before, &self.pool.pool().connect_options());
        eventually(DEADLINE, "the pool has other options", renewed).await;
        *self.options.lock().unwrap() = self.pool.pool().connect_options();
    }
}

impl life::Pool for Renewed {
    type Connection = PoolConnection<Postgres>;

    async fn get(&self) -> Result<Self::Connection, AnyError> {
        Ok(self.pool.pool().acquire().await?)
    }

    async fn process(connection: &mut Self::Connection) -> Result<i32, AnyError> {
        Ok(sqlx::query_scalar(PROCESS).fetch_one(&mut **connection).await?)
    }

    async fn notice(&self) {
        self.wait().await;
    }
}

async fn pool(connector: Connector) -> Result<Pool, ConnectError> {
    let size = u32::try_from(CONNECTIONS).unwrap();
    Pool::connect(connector, PgPoolOptions::new().max_connections(size)).await
}

#[tokio::test]
async fn a_pool_lives_through_three_token_lifetimes() {
    let mut cloud = Cloud::start().await;
    let renewed = Renewed::new(cloud.connector(ROLE)).await;
    life::lives_on(&mut cloud, &renewed).await;
    let clone = renewed.pool.pool().clone();
    renewed.pool.close().await;
    assert!(clone.is_closed());
    assert_eq!(clone.size(), 0);
    cloud.stop().await;
}

/// Shows that the test above needs the renewal.
#[tokio::test]
async fn a_pool_that_is_not_renewed_is_refused() {
    let cloud = Cloud::start().await;
    let pool = pool(cloud.connector(ROLE)).await.unwrap();
    let not_renewed = PgPoolOptions::new().connect_lazy_with(pool.pool().connect_options().as_ref().clone());
    cloud.pass(LIFETIME + LEEWAY).await;
    let error = not_renewed.acquire().await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    drop(pool.acquire().await.unwrap());
    cloud.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_cause_and_no_connection_is_handed_out() {
    let cloud = Cloud::start().await;
    life::is_refusal(&pool(cloud.connector(OTHER_ROLE)).await.unwrap_err());

    let pool = pool(cloud.connector(ROLE)).await.unwrap();
    // A connection goes back to the pool behind the scenes.
    eventually(DEADLINE, "a connection is idle", async || pool.pool().num_idle() > 0).await;
    life::refuse_tokens(&cloud);
    cloud.pass(LIFETIME + LEEWAY).await;
    life::is_token_failure(&pool.renew().await.unwrap_err());
    drop(pool.acquire().await.unwrap());
    cloud.end_sessions().await;
    life::is_token_failure(&pool.acquire().await.unwrap_err());
    assert!(!format!("{pool:?}").contains("eyJ"));
    cloud.stop().await;
}

#[tokio::test]
async fn a_newer_token_is_tried_once() {
    let cloud = Cloud::start().await;
    let connector = cloud.connector(OTHER_ROLE);
    drop(connector.libpq_environment().await.unwrap());
    for (wait, same) in [(Duration::ZERO, true), (LIFETIME - Duration::from_secs(9 * 60), false)] {
        // The platform gives a new token in the last ten minutes of the old one.
        cloud.pass(wait).await;
        let before = cloud.token_requests();
        let error = pool(connector.clone()).await.unwrap_err();
        life::is_refusal(&error);
        assert_eq!(error.same_token_came_back(), same);
        assert_eq!(cloud.token_requests() - before, 1);
    }
    cloud.stop().await;
}

/// Invariant 1: a token leaves the process only inside verified TLS, never to a name that did not match.
#[tokio::test]
async fn a_server_that_is_not_verified_gets_no_token() {
    let cloud = Cloud::start().await;
    // The server's certificate has 127.0.0.1, and not this other address of the loopback interface.
    let elsewhere = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = elsewhere.local_addr().unwrap().port().to_string();
    let server = cloud.connector(ROLE).target().endpoints()[0].port;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = elsewhere.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    });
    for (flags, failure) in [
        (&[("host", "127.0.0.2"), ("port", &port)][..], TlsFailure::Name),
        (&[("sslrootcert", "system")], TlsFailure::UnknownIssuer),
    ] {
        let flags: Vec<_> = flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect();
        let error = pool(cloud.connector_with(ROLE, &flags)).await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Tls(failure), "{error}");
    }
    cloud.stop().await;
}
