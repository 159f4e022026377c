//! The refill task: opens sessions before a client asks for them.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use pgentra_wire::startup::StartupMessage;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::guards::PendingOpen;
use super::{ServerPool, is_full};
use crate::limits::SessionPermit;
use crate::upstream::Upstream;
use pgentra_session::login_error::chain;

/// Sessions that the refill opens at the same time: few, to spare a server that has just restarted.
const AT_ONCE: usize = 4;
/// How often waiting sessions are checked. It bounds how long an ended session keeps its permit;
/// each session is checked again before a client gets it.
const LOOK: Duration = Duration::from_secs(1);

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
    let mut openings = JoinSet::new();
    loop {
        while openings.try_join_next().is_some() {}
        if pool.idle.is_claimed() {
            openings.abort_all();
        }
        let any = pool.idle.sweep(Instant::now());
        for start in pool.idle.missing(pool.warm, Instant::now()) {
            if openings.len() >= AT_ONCE || pool.idle.is_claimed() {
                break;
            }
            let Some(permit) = pool.sessions.take(pool.limit) else { break };
            if !pool.rate.try_turn() {
                break;
            }
            let Some(opening) = pool.idle.opening(&start) else { continue };
            openings.spawn(open_ahead(Arc::clone(&pool), start, opening, permit));
        }
        tokio::select! {
            () = pool.changed.notified() => {}
            Some(_) = openings.join_next(), if !openings.is_empty() => {}
            () = sleep(LOOK), if any => {}
        }
    }
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
