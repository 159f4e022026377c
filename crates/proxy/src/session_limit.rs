//! Limits the number of sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts sessions. Clones share the count; each call has its own limit, so that a limit can change
/// while there are sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionLimit(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    number: AtomicUsize,
    /// Notified when a session ends.
    freed: Notify,
}

/// A permit for one session; dropping it frees the permit.
#[derive(Debug)]
pub(crate) struct SessionPermit(Arc<Taken>);

impl SessionLimit {
    /// Takes a permit, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<SessionPermit> {
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        self.0.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(SessionPermit(Arc::clone(&self.0)))
    }

    /// Waits for a permit. Cancel-safe; waiting clients have no order.
    pub(crate) async fn wait(&self, limit: usize) -> SessionPermit {
        loop {
            let freed = self.0.freed.notified();
            match self.take(limit) {
                Some(permit) => return permit,
                None => freed.await,
            }
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The number of permits taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.number.load(Ordering::Relaxed)
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.number.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_and_limits_may_differ() {
        let permits = SessionLimit::default();
        assert!(permits.take(0).is_none());
        let one = permits.take(1).unwrap();
        assert!(permits.take(1).is_none());
        let two = permits.clone().take(2).unwrap();
        assert_eq!(permits.taken(), 2);
        drop(one);
        assert!(permits.take(1).is_none(), "one session already reaches this limit");
        drop(two);
        assert_eq!(permits.taken(), 0);
        assert!(permits.take(1).is_some());
    }

    #[tokio::test]
    async fn a_place_that_gets_free_is_noticed() {
        let permits = SessionLimit::default();
        let permit = permits.take(1).unwrap();
        let (waited, ()) = tokio::join!(permits.wait(1), async { drop(permit) });
        assert_eq!(permits.taken(), 1);
        drop(waited);
    }
}
