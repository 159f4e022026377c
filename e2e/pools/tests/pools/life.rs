//! What every pool must support.

use std::collections::BTreeSet;
use std::error::Error;

use futures_util::future::try_join_all;
use pgentra_connect::{ConnectError, ConnectErrorKind, Refusal};
use pgentra_emulator::{Endpoint, Fault};

use crate::cloud::{Cloud, LEEWAY, LIFETIME};

/// Connections of a pool.
pub(crate) const CONNECTIONS: usize = 10;

/// What reports the server process behind a session.
pub(crate) const PROCESS: &str = "SELECT pg_backend_pid()";

pub(crate) type AnyError = Box<dyn Error>;

/// A pool of [`CONNECTIONS`] connections.
pub(crate) trait Pool {
    type Connection;

    async fn get(&self) -> Result<Self::Connection, AnyError>;

    /// The answer to [`PROCESS`].
    async fn process(connection: &mut Self::Connection) -> Result<i32, AnyError>;

    /// Returns when the pool has noticed that the token has expired. Most need not: they ask at the next connection.
    async fn notice(&self) {}
}

/// Three lifetimes: sessions outlive their tokens, every new one has a fresh token, and ten of them share it. Then the
/// server is restarted.
pub(crate) async fn lives_on<P: Pool>(cloud: &mut Cloud, pool: &P) {
    let mut seen = BTreeSet::new();
    let tokens_before = cloud.token_requests();
    for life in 0..3 {
        let mut connections = all(pool, &mut seen).await;
        cloud.pass(LIFETIME + LEEWAY).await;
        pool.notice().await;
        for connection in &mut connections {
            let process = P::process(connection).await.unwrap();
            assert!(seen.contains(&process), "a session did not outlive its token");
        }
        cloud.end_sessions().await;
        drop(connections);
        assert!(cloud.token_requests() - tokens_before <= life + 1, "ten connections share a token");
    }
    drop(all(pool, &mut seen).await);
    cloud.restart().await;
    drop(all(pool, &mut seen).await);
    assert!(cloud.token_requests() - tokens_before >= 3, "every lifetime needs its token");
}

/// As many sessions as the pool has connections, none of them seen before.
async fn all<P: Pool>(pool: &P, seen: &mut BTreeSet<i32>) -> Vec<P::Connection> {
    let mut connections = try_join_all((0..CONNECTIONS).map(|_| pool.get())).await.unwrap();
    for connection in &mut connections {
        assert!(seen.insert(P::process(connection).await.unwrap()), "a session that had ended");
    }
    connections
}

/// The error says that the role belongs to another identity.
pub(crate) fn is_refusal(error: &(dyn Error + 'static)) {
    let error = ConnectError::find(error).unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::Refused(Refusal::OidMismatch), "{error}");
}

/// From now on the metadata service refuses requests for tokens.
pub(crate) fn refuse_tokens(cloud: &Cloud) {
    let answer =
        r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist"}"#;
    cloud.azure().faults().push_lasting(Endpoint::ImdsToken, Fault::status(400, answer));
}

/// The error contains the metadata service's message.
pub(crate) fn is_token_failure(error: &(dyn Error + 'static)) {
    let error = ConnectError::find(error).unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::Token, "{error}");
    let cause = error.token_error().unwrap();
    assert_eq!((cause.status(), cause.code()), (Some(400), Some("invalid_request")), "{cause}");
}
