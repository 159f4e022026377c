//! How many sessions there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places for sessions. Clones count together, each with a limit of its own, so that a limit can change while there are
/// sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// A place that is taken; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    /// Takes a place, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<Place> {
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(Arc::clone(&self.0)))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_and_limits_may_differ() {
        let places = Places::default();
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
}
