//! How many sessions there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Places for sessions. Clones count together, each with a limit of its own, so that a limit can change while there are
/// sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionLimit(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    number: AtomicUsize,
    /// There is one less.
    freed: Notify,
}

/// A place that is taken; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct SessionPermit(Arc<Taken>);

impl SessionLimit {
    /// Takes a place, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<SessionPermit> {
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        self.0.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(SessionPermit(Arc::clone(&self.0)))
    }

    /// The same, waiting until there is one. Cancel-safe; whoever waited longest has no precedence.
    pub(crate) async fn wait(&self, limit: usize) -> SessionPermit {
        loop {
            let freed = self.0.freed.notified();
            match self.take(limit) {
                Some(place) => return place,
                None => freed.await,
            }
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many are taken.
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
        let places = SessionLimit::default();
        assert!(places.take(0).is_none());
        let one = places.take(1).unwrap();
        assert!(places.take(1).is_none());
        let two = places.clone().take(2).unwrap();
        assert_eq!(places.taken(), 2);
        drop(one);
        assert!(places.take(1).is_none(), "one is still too many for this limit");
        drop(two);
        assert_eq!(places.taken(), 0);
        assert!(places.take(1).is_some());
    }

    #[tokio::test]
    async fn a_place_that_gets_free_is_noticed() {
        let places = SessionLimit::default();
        let place = places.take(1).unwrap();
        let (waited, ()) = tokio::join!(places.wait(1), async { drop(place) });
        assert_eq!(places.taken(), 1);
        drop(waited);
    }
}
