use std::time::Duration;

use pgentra_connect::adapter::bb8::Pool;
use pgentra_connect::{Connector, Session};

use crate::cloud::{Cloud, OTHER_ROLE, ROLE};
use crate::life::{self, AnyError, CONNECTIONS, PROCESS};

/// bb8 retries until this time is over.
const ENOUGH: Duration = Duration::from_secs(5);
const PLENTY: Duration = Duration::from_secs(60);

impl life::Pool for Pool {
    type Connection = bb8::PooledConnection<'static, Connector>;

    async fn get(&self) -> Result<Self::Connection, AnyError> {
        Ok(self.get_owned().await?)
    }

    async fn process(connection: &mut Self::Connection) -> Result<i32, AnyError> {
        let session: &Session = connection;
        Ok(session.client().query_one(PROCESS, &[]).await?.get(0))
    }
}

fn pool(connector: Connector, timeout: Duration) -> Pool {
    let size = u32::try_from(CONNECTIONS).unwrap();
    Pool::new(bb8::Pool::builder().max_size(size).connection_timeout(timeout), connector)
}

#[tokio::test]
async fn a_pool_lives_through_three_token_lifetimes() {
    let mut cloud = Cloud::start().await;
    let pool = pool(cloud.connector(ROLE), PLENTY);
    life::lives_on(&mut cloud, &pool).await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_cause_and_no_connection_is_handed_out() {
    let cloud = Cloud::start().await;
    let refused = pool(cloud.connector(OTHER_ROLE), ENOUGH);
    life::is_refusal(&refused.get().await.unwrap_err());
    assert_eq!(refused.state().connections, 0);

    life::refuse_tokens(&cloud);
    life::is_token_failure(&pool(cloud.connector(ROLE), ENOUGH).get().await.unwrap_err());
    cloud.stop().await;
}
