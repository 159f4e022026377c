//! The gateway's own connection to the PostgreSQL behind it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use super::upstream::{ServiceAccount, UpstreamAddress, UpstreamMethod};

/// Time for the answer to a query, which takes a millisecond. After it the connection is closed.
const ANSWER: Duration = Duration::from_secs(10);

/// Administrators own the database `postgres` and can change its settings. These values override
/// that.
const SETTINGS: &str = "-c search_path=pg_catalog,pg_temp -c role=none -c statement_timeout=0 -c lock_timeout=0 \
    -c default_transaction_read_only=off";

/// A connection as the service account to the database `postgres`. Opened at the first query, and
/// again after it broke.
pub(crate) struct ControlConnection {
    upstream: UpstreamAddress,
    method: UpstreamMethod,
    service: ServiceAccount,
    client: Mutex<Option<Arc<Client>>>,
}

/// A parameter of a query, with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the control connection to PostgreSQL failed")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the control connection to PostgreSQL could not be opened")]
    Dial(#[source] std::io::Error),
    #[error("PostgreSQL did not answer on the control connection within {} s", ANSWER.as_secs())]
    Slow,
    #[error("the mapping in PostgreSQL is not as the gateway's preparation makes it")]
    Mapping,
}

impl ControlConnection {
    pub(crate) fn new(upstream: UpstreamAddress, method: UpstreamMethod, service: ServiceAccount) -> Self {
        Self { upstream, method, service, client: Mutex::new(None) }
    }

    /// Runs a query, with parameters and their types: so it takes one round trip. If the connection
    /// turns out to be broken, it is opened again and the query is repeated once.
    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, ControlError> {
        let client = self.client().await?;
        match self.ask(&client, sql, parameters).await {
            // PostgreSQL was restarted since the last login: the first client after it must not see that. A broken
            // statement is not repeated, as it would break again.
            Err(ControlError::Postgres(error)) if has_ended(&error) || client.is_closed() => {
                self.forget(&client).await;
                let client = self.client().await?;
                self.ask(&client, sql, parameters).await
            }
            answer => answer,
        }
    }

    async fn ask(
        &self,
        client: &Arc<Client>,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, ControlError> {
        match tokio::time::timeout(ANSWER, client.query_typed(sql, parameters)).await {
            Ok(answer) => Ok(answer?),
            // The statement may still run there, and its answer would be read as that of the next one.
            Err(_) => {
                self.forget(client).await;
                Err(ControlError::Slow)
            }
        }
    }

    async fn client(&self) -> Result<Arc<Client>, ControlError> {
        // Held while connecting: logins that arrive together share one new connection.
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let connect = connect(&self.upstream, &self.method, &self.service);
        let client = tokio::time::timeout(ANSWER, connect).await.map_err(|_| ControlError::Slow)??;
        let client = Arc::new(client);
        *slot = Some(client.clone());
        Ok(client)
    }

    /// Drops a connection, unless it was replaced already.
    async fn forget(&self, client: &Arc<Client>) {
        let mut slot = self.client.lock().await;
        if slot.as_ref().is_some_and(|held| Arc::ptr_eq(held, client)) {
            *slot = None;
        }
    }
}

/// A column of a row. The mapping is the server's: it may have another type, or no value.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, ControlError> {
    row.try_get(index).map_err(|_| ControlError::Mapping)
}

impl ControlError {
    /// Whether the server answers and the mapping cannot be read: it does not let the gateway in, or the
    /// mapping is gone, is not the gateway's to read, or has another form. That lasts until an
    /// administrator changes it.
    pub(crate) fn is_of_the_mapping(&self) -> bool {
        match self {
            Self::Mapping => true,
            Self::Postgres(error) => error.code().is_some_and(is_lasting),
            Self::Dial(_) | Self::Slow => false,
        }
    }
}

/// Whether a query fails with this SQLSTATE again until an administrator changes something. Others may
/// pass by themselves: a standby cancels a query because of its recovery (40001), a lock is not granted
/// in time (55P03), a file cannot be read (58030).
fn is_lasting(code: &SqlState) -> bool {
    // Data of another form, the password or pg_hba.conf, no such database, no such schema, and no such
    // relation or no right to it (PostgreSQL documentation, "PostgreSQL Error Codes").
    ["22", "28", "3D", "3F", "42"].iter().any(|class| code.code().starts_with(class))
}

/// Whether an error means that the server ends the connection: class 57P of SQLSTATE.
fn has_ended(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.code().is_some_and(|code| code.code().starts_with("57P"))
}

/// Connects. The task that drives the connection ends with the last handle of the client.
pub(crate) async fn connect(
    upstream: &UpstreamAddress,
    method: &UpstreamMethod,
    service: &ServiceAccount,
) -> Result<Client, ControlError> {
    let stream = upstream.dial(method, &service.name).await.map_err(ControlError::Dial)?;
    let mut config = UpstreamAddress::driver_config(service);
    config.options(SETTINGS).application_name("pgentra gateway");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the control connection ended");
        }
    });
    Ok(client)
}

#[cfg(test)]
mod tests {
    use pgentra_localdb::{Installation, Options};

    use super::*;

    #[tokio::test]
    async fn a_question_in_whose_middle_the_connection_dies_is_asked_again() {
        let folder = std::env::temp_dir().join(format!("pgentra-control-{}", std::process::id()));
        let db = pgentra_localdb::start(Options { folder, server: Installation::Embedded }).await.unwrap();
        let upstream = UpstreamAddress::Unix { dir: db.socket_dir().to_owned(), port: db.port() };
        let service = ServiceAccount { name: db.superuser().to_owned(), password: db.password().clone() };
        let control = ControlConnection::new(upstream, UpstreamMethod::Password, service);
        control.query("CREATE SEQUENCE public.asked", &[]).await.unwrap();
        // A failed transaction does not reset the sequence, so it counts the queries.
        let deadly =
            "SELECT CASE nextval('public.asked') WHEN 1 THEN pg_terminate_backend(pg_backend_pid()) END";
        control.query(deadly, &[]).await.unwrap();
        let rows = control.query("SELECT last_value FROM public.asked", &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 2);
        // A query that PostgreSQL refuses is not repeated.
        let wrong = "SELECT nextval('public.asked') / 0";
        assert!(matches!(control.query(wrong, &[]).await, Err(ControlError::Postgres(_))));
        let rows = control.query("SELECT last_value FROM public.asked", &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 3);

        // What an administrator has to change, and what passes.
        for (sql, is_lasting) in [
            ("SELECT FROM public.missing", true),
            ("SELECT FROM missing.asked", true),
            ("SELECT 'maybe'::boolean", true),
            (&*raise("28000"), true),
            (&*raise("3D000"), true),
            (&*raise("3F000"), true),
            (&*raise("40001"), false),
            (&*raise("40P01"), false),
            (&*raise("53300"), false),
            (&*raise("55P03"), false),
            (&*raise("57014"), false),
            (&*raise("58030"), false),
            (&*raise("XX000"), false),
        ] {
            let error = control.query(sql, &[]).await.unwrap_err();
            assert_eq!(error.is_of_the_mapping(), is_lasting, "{sql}: {error:?}");
        }
        db.stop().await;
        let error = control.query("SELECT 1", &[]).await.unwrap_err();
        assert!(!error.is_of_the_mapping(), "{error:?}");
    }

    /// A statement that PostgreSQL answers with this SQLSTATE.
    fn raise(sqlstate: &str) -> String {
        format!("DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$")
    }
}
