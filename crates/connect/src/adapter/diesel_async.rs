//! diesel-async: how its pools open a connection.

use std::error::Error;
use std::fmt;

use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{ManagerConfig, PoolError};

use crate::connector::Connector;
use crate::error::ConnectError;

/// The URL that the manager is given besides is not looked at.
///
/// An error of the pool shows every level of the [`ConnectError`] in one line, because diesel-async's own type has no
/// source; [`ConnectError::find`] takes it out.
///
/// ```no_run
/// use diesel_async::pooled_connection::{AsyncDieselConnectionManager, deadpool::Pool};
/// use diesel_async::{AsyncPgConnection, RunQueryDsl};
/// use pgentra_connect::Connector;
///
/// # async fn example(connector: Connector) -> Result<(), Box<dyn std::error::Error>> {
/// let manager = AsyncDieselConnectionManager::new_with_config("", connector.into());
/// let pool = Pool::<AsyncPgConnection>::builder(manager).max_size(10).build()?;
/// diesel::sql_query("SELECT 1").execute(&mut pool.get().await?).await?;
/// # Ok(())
/// # }
/// ```
impl From<Connector> for ManagerConfig<AsyncPgConnection> {
    fn from(connector: Connector) -> Self {
        let mut config = ManagerConfig::default();
        config.custom_setup = Box::new(move |_| {
            let connector = connector.clone();
            Box::pin(async move {
                let (client, _driver) = connector.connect().await.map_err(wrap)?.into_parts();
                AsyncPgConnection::try_from(client).await
            })
        });
        config
    }
}

/// All levels of an error in one line.
#[derive(Debug)]
struct InOneLine(ConnectError);

impl fmt::Display for InOneLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut below = self.0.source();
        while let Some(error) = below {
            write!(f, ": {error}")?;
            below = error.source();
        }
        Ok(())
    }
}

impl Error for InOneLine {}

/// Of diesel's connection errors this one holds an error, not only a text.
fn wrap(error: ConnectError) -> ConnectionError {
    let error = diesel::result::Error::QueryBuilderError(Box::new(InOneLine(error)));
    ConnectionError::CouldntSetupConfiguration(error)
}

pub(super) fn unwrap<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
    let error = match error.downcast_ref::<PoolError>() {
        Some(PoolError::ConnectionError(error)) => error,
        _ => error.downcast_ref::<ConnectionError>()?,
    };
    match error {
        ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(error)) => {
            error.downcast_ref::<InOneLine>().map(|error| &error.0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diesels_error_holds_ours_and_shows_all_of_it() {
        let ours = || ConnectError::config("outside").because(ConnectError::config("inside").hinting("x"));
        let error = PoolError::ConnectionError(wrap(ours()));
        assert_eq!(error.to_string(), "outside: inside");
        assert_eq!(ConnectError::find(&error).unwrap().to_string(), "outside");
        assert_eq!(ConnectError::find(&wrap(ours())).unwrap().to_string(), "outside");
    }
}
