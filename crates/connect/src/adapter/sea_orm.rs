//! SeaORM on a pool of sqlx.

use sea_orm::{DatabaseConnection, SqlxPostgresConnector};

use super::sqlx::Pool;

impl Pool {
    /// SeaORM's connection on this pool. Keep the pool as long as the connection is used: it renews the token.
    ///
    /// SeaORM's errors come from sqlx; why there is no token, [`Pool::renew`] says.
    ///
    /// ```no_run
    /// use pgentra_connect::{Connector, adapter::sqlx::Pool};
    /// use sea_orm::ConnectionTrait;
    /// use sqlx::postgres::PgPoolOptions;
    ///
    /// # async fn example(connector: Connector) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::connect(connector, PgPoolOptions::new().max_connections(10)).await?;
    /// pool.sea_orm().execute_unprepared("SELECT 1").await?;
    /// pool.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sea_orm(&self) -> DatabaseConnection {
        SqlxPostgresConnector::from_sqlx_postgres_pool(self.pool().clone())
    }
}
