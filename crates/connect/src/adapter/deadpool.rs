//! deadpool-postgres: how a manager opens a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use deadpool_postgres::Connect;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::connector::Connector;
use crate::error::ConnectError;

/// Where to connect is the connector's to say: the manager's own `Config` is not looked at.
///
/// An error of the pool holds the [`ConnectError`]: [`ConnectError::find`] takes it out.
///
/// ```no_run
/// use deadpool_postgres::{Manager, ManagerConfig, Pool};
/// use pgentra_connect::Connector;
///
/// # async fn example(connector: Connector) -> Result<(), Box<dyn std::error::Error>> {
/// let manager = Manager::from_connect(Default::default(), connector, ManagerConfig::default());
/// let pool = Pool::builder(manager).max_size(10).build()?;
/// let row = pool.get().await?.query_one("SELECT version()", &[]).await?;
/// # Ok(())
/// # }
/// ```
impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async {
            match Connector::connect(self).await {
                Ok(session) => {
                    let (client, driver) = session.into_parts();
                    // The result is dropped: the driver has logged the end of the session.
                    Ok((client, tokio::spawn(async { drop(driver.await) })))
                }
                Err(error) => fail(error).await,
            }
        })
    }
}

/// `tokio_postgres::Error` has no public constructor, so the driver is given a stream that fails with our error.
async fn fail(error: ConnectError) -> Result<(Client, JoinHandle<()>), Error> {
    let mut config = Config::new();
    config.user("unused").ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(FailsOnce(Some(error)), NoTls).await?;
    Ok((client, tokio::spawn(async { drop(connection.await) })))
}

/// Fails with this error, and from then on without one.
struct FailsOnce(Option<ConnectError>);

impl FailsOnce {
    fn error(&mut self) -> io::Error {
        self.0.take().map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::other)
    }
}

impl AsyncRead for FailsOnce {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.error()))
    }
}

impl AsyncWrite for FailsOnce {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(self.error()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.error()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drivers_error_holds_ours() {
        let error = fail(ConnectError::config("no server is named").hinting("name one")).await.unwrap_err();
        assert_eq!(ConnectError::find(&error).unwrap().hint().unwrap(), "name one");
    }
}
