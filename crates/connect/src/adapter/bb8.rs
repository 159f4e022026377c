//! bb8: the connector as its manager, and a pool whose timeout error has the cause.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use bb8::{Builder, ErrorSink, ManageConnection, PooledConnection, RunError};
use tokio::time::Instant;

use crate::connector::Connector;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::session::Session;

impl ManageConnection for Connector {
    type Connection = Session;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Session, ConnectError> {
        Connector::connect(self).await
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), ConnectError> {
        let checked = session.client().check_connection().await;
        checked.map_err(|error| ConnectError::protocol("the session in the pool has ended").because(error))
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.client().is_closed()
    }
}

/// A pool of bb8. Cheap to clone; clones share the pool.
///
/// bb8 itself tries to connect until its `connection_timeout` has passed, and then says that it timed out;
/// [`Pool::get`] says why. Everything else is bb8's pool, to which this one dereferences.
///
/// ```no_run
/// use pgentra_connect::{Connector, adapter::bb8::Pool};
///
/// # async fn example(connector: Connector) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(bb8::Pool::builder().max_size(10), connector);
/// let session = pool.get().await?;
/// let row = session.client().query_one("SELECT version()", &[]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    pool: bb8::Pool<Connector>,
    failure: LastFailure,
}

impl Pool {
    /// A pool as the builder says, whose error sink is replaced. No connection is awaited.
    ///
    /// Must be called inside a tokio runtime.
    pub fn new(builder: Builder<Connector>, connector: Connector) -> Pool {
        let failure = LastFailure::default();
        let pool = builder.error_sink(failure.boxed_clone()).build_unchecked(connector);
        Pool { pool, failure }
    }

    /// A session out of the pool. It was signed in, and it answered just now, unless the builder said
    /// `test_on_check_out(false)`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// After bb8's `connection_timeout`: why no connection could be opened meanwhile; or, where every connection was in use
    /// all that time, [`ConnectErrorKind::Timeout`].
    pub async fn get(&self) -> Result<PooledConnection<'_, Connector>, Arc<ConnectError>> {
        let began = Instant::now();
        self.pool.get().await.map_err(|error| match error {
            RunError::User(error) => Arc::new(error),
            RunError::TimedOut => self.failure.since(began).unwrap_or_else(|| Arc::new(all_in_use())),
        })
    }
}

impl Deref for Pool {
    type Target = bb8::Pool<Connector>;

    fn deref(&self) -> &bb8::Pool<Connector> {
        &self.pool
    }
}

fn all_in_use() -> ConnectError {
    ConnectError::new(ConnectErrorKind::Timeout, "no connection of the pool became free in time")
        .hinting("let the pool have more connections, or its users return them sooner")
}

/// The last connection error of the pool: bb8 gives it to its error sink only, not to the caller of `get`.
#[derive(Debug, Clone, Default)]
struct LastFailure(Arc<Mutex<Option<RecordedFailure>>>);

#[derive(Debug)]
struct RecordedFailure {
    at: Instant,
    error: Arc<ConnectError>,
}

impl LastFailure {
    fn since(&self, began: Instant) -> Option<Arc<ConnectError>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|failure| failure.at >= began).map(|failure| failure.error.clone())
    }
}

impl ErrorSink<ConnectError> for LastFailure {
    fn sink(&self, error: ConnectError) {
        tracing::warn!(%error, "a connection of the pool failed");
        let failure = RecordedFailure { at: Instant::now(), error: Arc::new(error) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<ConnectError>> {
        Box::new(self.clone())
    }
}
