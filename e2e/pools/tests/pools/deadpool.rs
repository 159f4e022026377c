use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use pgentra_connect::Connector;

use crate::cloud::{Cloud, OTHER_ROLE, ROLE};
use crate::life::{self, AnyError, CONNECTIONS, PROCESS};

impl life::Pool for Pool {
    type Connection = Object;

    async fn get(&self) -> Result<Object, AnyError> {
        Ok(Pool::get(self).await?)
    }

    async fn process(connection: &mut Object) -> Result<i32, AnyError> {
        Ok(connection.query_one(PROCESS, &[]).await?.get(0))
    }
}

fn pool(connector: Connector) -> Pool {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Verified };
    let manager = Manager::from_connect(Default::default(), connector, config);
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
    life::is_refusal(&refused.get().await.unwrap_err());
    assert_eq!(refused.status().size, 0);

    life::refuse_tokens(&cloud);
    life::is_token_failure(&pool(cloud.connector(ROLE)).get().await.unwrap_err());
    cloud.stop().await;
}
