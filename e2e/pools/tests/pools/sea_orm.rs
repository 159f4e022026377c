use sea_orm::{ConnectionTrait, DatabaseBackend, Statement, TransactionTrait};

use crate::cloud::{Cloud, ROLE};
use crate::life::{self, AnyError, PROCESS};
use crate::sqlx::Renewed;

struct Orm(Renewed);

impl life::Pool for Orm {
    /// A transaction keeps its connection.
    type Connection = sea_orm::DatabaseTransaction;

    async fn get(&self) -> Result<Self::Connection, AnyError> {
        Ok(self.0.pool.sea_orm().begin().await?)
    }

    async fn process(connection: &mut Self::Connection) -> Result<i32, AnyError> {
        let row =
            connection.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, PROCESS)).await?;
        Ok(row.ok_or("no row")?.try_get_by_index(0)?)
    }

    async fn notice(&self) {
        self.0.wait().await;
    }
}

#[tokio::test]
async fn a_connection_lives_through_three_token_lifetimes() {
    let mut cloud = Cloud::start().await;
    let orm = Orm(Renewed::new(cloud.connector(ROLE)).await);
    life::lives_on(&mut cloud, &orm).await;
    orm.0.pool.close().await;
    cloud.stop().await;
}
