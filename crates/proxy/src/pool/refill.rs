//! The refill task of a pool: see [`kept::keep_full`].

use std::sync::{Arc, PoisonError, Weak};

use pgentra_session::kept::{self, Idle as _, PendingOpen};
use pgentra_wire::startup::StartupMessage;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{ServerPool, is_full};
use crate::limits::SessionPermit;
use crate::upstream::Upstream;
use pgentra_session::login_error::chain;

/// The pool stores sessions while one of these exists.
pub(crate) struct RefillGuard(Arc<ServerPool>);

impl RefillGuard {
    /// For one listener. `None`: the pool stores no sessions.
    pub(crate) fn of(pool: Arc<ServerPool>) -> Option<Self> {
        if pool.warm == 0 && !pool.reuse {
            return None;
        }
        let mut refill = pool.refill.lock().unwrap_or_else(PoisonError::into_inner);
        refill.listeners += 1;
        if refill.task.is_none() {
            pool.idle.open();
            let weak: Weak<ServerPool> = Arc::downgrade(&pool);
            pool.telemetry.kept_by(weak);
            refill.task = Some(tokio::spawn(keep_full(Arc::clone(&pool))).abort_handle());
        }
        drop(refill);
        Some(Self(pool))
    }
}

impl Drop for RefillGuard {
    fn drop(&mut self) {
        let mut refill = self.0.refill.lock().unwrap_or_else(PoisonError::into_inner);
        refill.listeners -= 1;
        if refill.listeners == 0 {
            refill.task.take().inspect(AbortHandle::abort);
            self.0.idle.close();
        }
    }
}

/// Checks and refills the pool until the task is aborted.
async fn keep_full(pool: Arc<ServerPool>) {
    let (idle, warm, changed) = (pool.idle.clone(), pool.warm, Arc::clone(&pool.changed));
    kept::keep_full(idle, warm, changed, |start, opening| {
        let permit = pool.sessions.take(pool.limit)?;
        pool.rate.try_turn().then(|| open_ahead(Arc::clone(&pool), start, opening, permit))
    })
    .await;
}

async fn open_ahead(
    pool: Arc<ServerPool>,
    start: StartupMessage,
    opening: PendingOpen<Upstream>,
    permit: SessionPermit,
) {
    match pool.dial(&start).await {
        Ok(opened) => {
            let mut upstream = Upstream::new(opened, permit, pool.server_lifetime);
            let identified = upstream.identify().await;
            if identified.is_ok() && upstream.may_be_kept() {
                pool.telemetry.supply().warmed.inc();
                return opening.opened(upstream, Instant::now());
            }
            pool.telemetry.supply().failed.inc();
            let error = identified.err().map(|error| chain(&error));
            tracing::info!(error, "a session that the refill opened cannot be pooled");
            opening.failed(Instant::now());
            upstream.end().await;
        }
        Err(error) => {
            pool.telemetry.supply().failed.inc();
            tracing::info!(%error, "the refill could not open a session");
            if is_full(&error) {
                pool.idle.pause(Instant::now());
            }
            opening.failed(Instant::now());
        }
    }
}
