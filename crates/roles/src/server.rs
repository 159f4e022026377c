use pgentra_connect::{Connector, Session};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::error::RolesError;

/// The database whose sessions manage principals; on Flexible Server the only one that has the functions for it.
pub(crate) const PRINCIPALS: &str = "postgres";

/// A server, and the administrator who signs in to it: a session for each database that is asked for.
#[derive(Debug, Clone)]
pub struct ServerSessions {
    connector: Connector,
}

impl ServerSessions {
    /// The server of this connector, with its role and its identity.
    pub fn new(connector: Connector) -> Self {
        Self { connector }
    }

    /// The database that the connector names: what a file of roles means where it names none.
    pub fn default_database(&self) -> &str {
        self.connector.target().database()
    }

    /// The number by which PostgreSQL tells one cluster of databases from every other, however it is reached: a standby and
    /// a restored copy have the same one. `None`: the server does not let this role read it (`pg_control_system`).
    ///
    /// # Errors
    /// No session with the server, or a refusal for another reason.
    pub async fn system_identifier(&self) -> Result<Option<i64>, RolesError> {
        let session = self.open(PRINCIPALS).await?;
        let read = session.query("SELECT system_identifier FROM pg_catalog.pg_control_system()", &[]).await;
        match read {
            Ok(rows) => Ok(rows.first().map(|row| row.get(0))),
            // The role may not call it, or the server has no such function.
            Err(error) if matches!(error.sqlstate(), Some("42501" | "42883")) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A session in a database.
    pub(crate) async fn open(&self, database: &str) -> Result<DatabaseSession, RolesError> {
        let failed = |source| RolesError::Connect { database: database.to_owned(), source };
        let session =
            self.connector.with_database(database).map_err(failed)?.connect().await.map_err(failed)?;
        Ok(DatabaseSession { session, database: database.to_owned() })
    }
}

/// A session in a database. Dropped, it ends, and with it a transaction that was not committed.
#[derive(Debug)]
pub(crate) struct DatabaseSession {
    session: Session,
    pub(crate) database: String,
}

impl DatabaseSession {
    pub(crate) fn client(&self) -> &Client {
        self.session.client()
    }

    /// Runs statements as they are.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), RolesError> {
        tracing::debug!(database = self.database, sql, "running");
        self.client().batch_execute(sql).await.map_err(|error| RolesError::of(&self.database, sql, error))
    }

    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, RolesError> {
        let rows = self.client().query(sql, parameters).await;
        rows.map_err(|error| RolesError::of(&self.database, sql, error))
    }

    /// Begins a transaction that sees one state and cannot write.
    pub(crate) async fn begin_reading(&self) -> Result<(), RolesError> {
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }
}
