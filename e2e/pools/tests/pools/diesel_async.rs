use diesel::sql_types::Integer;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use pgentra_connect::Connector;

use crate::cloud::{Cloud, OTHER_ROLE, ROLE};
use crate::life::{self, AnyError, CONNECTIONS, PROCESS};

#[derive(diesel::QueryableByName)]
struct Process {
    #[diesel(sql_type = Integer)]
    pg_backend_pid: i32,
}

impl life::Pool for Pool<AsyncPgConnection> {
    type Connection = Object<AsyncPgConnection>;

    async fn get(&self) -> Result<Self::Connection, AnyError> {
        Ok(Pool::get(self).await?)
    }

    async fn process(connection: &mut Self::Connection) -> Result<i32, AnyError> {
        let process: Process = diesel::sql_query(PROCESS).get_result(connection).await?;
        Ok(process.pg_backend_pid)
    }
}

fn pool(connector: Connector) -> Pool<AsyncPgConnection> {
    let manager = AsyncDieselConnectionManager::new_with_config("", connector.into());
    Pool::builder(manager).max_size(CONNECTIONS).build().unwrap()
}

#[tokio::test]
async fn a_pool_lives_through_three_token_lifetimes() {
    let mut cloud = Cloud::start().await;
    let pool = pool(cloud.connector(ROLE));
    life::lives_on(&mut cloud, &pool).await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_cause_and_no_connection_is_handed_out() {
    let cloud = Cloud::start().await;
    let refused = pool(cloud.connector(OTHER_ROLE));
    life::is_refusal(&refused.get().await.err().unwrap());
    assert_eq!(refused.status().size, 0);

    life::refuse_tokens(&cloud);
    let error = pool(cloud.connector(ROLE)).get().await.err().unwrap();
    assert!(error.to_string().contains("invalid_request"), "{error}");
    life::is_token_failure(&error);
    cloud.stop().await;
}
