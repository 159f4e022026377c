//! The keys over time: fetched when first needed, renewed daily, and once more when a token names an unknown one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use crate::jwks::{KeyRules, KeySet};
use crate::rejection::{FetchError, Rejection};
use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// Keys older than this are fetched again at the next token. Microsoft: "check for keys every 24 hours".
pub const REFRESH_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Keys older than this are fetched again by [`Verifier::refresh`](crate::Verifier::refresh): half the time after which
/// a login would have to wait for it.
pub const REFRESH_AHEAD: Duration = Duration::from_secs(12 * 3600);

/// Keys that could not be renewed are served until they are this old: long enough to outlive an outage, short enough
/// that a key withdrawn by the tenant does not live on for ever behind a blocked connection.
pub const MAX_STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Without any keys, and after a fetch that failed, the next one may start this much later.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where an issuer's signing keys come from.
pub trait KeySource: Send + Sync {
    /// Fetches the bytes of the JSON Web Key Set, at most [`JWKS_LIMIT`](crate::JWKS_LIMIT) of them, within a time
    /// that the implementation bounds: callers of [`Verifier::verify`](crate::Verifier::verify) may wait for it.
    ///
    /// The future may be polled by several tasks in turn and may rest unpolled for a while between two of them.
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>>;
}

/// Promises: one fetch at a time, however many wait for it; at most one per interval because of unknown key ids; a
/// failed fetch leaves the keys at hand in use.
pub(crate) struct KeyCache {
    store: Arc<Store>,
    source: Arc<dyn KeySource>,
    refetch_interval: Duration,
    rules: Arc<KeyRules>,
}

/// One fetched key set. Two fetches never share a generation.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) keys: KeySet,
    pub(crate) generation: u64,
    fetched_at: SystemTime,
}

struct Store {
    loaded: ArcSwapOption<Loaded>,
    state: Mutex<FetchState>,
}

#[derive(Default)]
struct FetchState {
    /// Stored here and not only in the waiting callers: if all of them are cancelled, the next caller continues the
    /// fetch. Otherwise clients that disconnect at once could use up every interval, and no fetch would complete.
    running: Option<Fetch>,
    started_at: Option<SystemTime>,
    last_error: Option<FetchError>,
    generation: u64,
}

type FetchResult = Result<Arc<Loaded>, FetchError>;
type Fetch = Shared<BoxFuture<'static, FetchResult>>;

/// What [`KeyCache::fetch`] found: its caller decides whether to wait.
enum Offer {
    Begun(Fetch),
    Joined(Fetch),
    TooSoon(Option<FetchError>),
}

impl KeyCache {
    pub(crate) fn new(source: Arc<dyn KeySource>, rules: KeyRules, refetch_interval: Duration) -> KeyCache {
        let store =
            Arc::new(Store { loaded: ArcSwapOption::empty(), state: Mutex::new(FetchState::default()) });
        KeyCache { store, source, refetch_interval, rules: Arc::new(rules) }
    }

    /// The cached keys if they need no renewal, without waiting.
    pub(crate) fn fresh(&self, now: SystemTime) -> Option<Arc<Loaded>> {
        self.store.loaded.load_full().filter(|loaded| loaded.age(now) < REFRESH_AFTER)
    }

    /// The number of keys at hand and when they were fetched; `None` before the first fetch that succeeded.
    pub(crate) fn standing(&self) -> Option<(usize, SystemTime)> {
        self.store.loaded.load().as_ref().map(|loaded| (loaded.keys.len(), loaded.fetched_at))
    }

    /// Keys that are fresh, or as fresh as can be had.
    pub(crate) async fn current(&self, now: SystemTime) -> FetchResult {
        if let Some(loaded) = self.fresh(now) {
            return Ok(loaded);
        }
        let usable = self.store.loaded.load_full().filter(|loaded| loaded.age(now) < MAX_STALE);
        match (self.fetch(now), usable) {
            // The caller that began the fetch waits for it, so that a process with few logins renews its keys at all.
            (Offer::Begun(fetch), Some(stale)) => Ok(fetch.await.unwrap_or(stale)),
            // Another caller has begun this fetch. Poll it once, in case that caller was cancelled, and do not wait.
            (Offer::Joined(fetch), Some(stale)) => {
                Ok(fetch.now_or_never().and_then(Result::ok).unwrap_or(stale))
            }
            (Offer::TooSoon(_), Some(stale)) => Ok(stale),
            (Offer::Begun(fetch) | Offer::Joined(fetch), None) => fetch.await,
            (Offer::TooSoon(Some(error)), None) => Err(error),
            // Another task has fetched them since they were looked for above.
            (Offer::TooSoon(None), None) => {
                self.store.loaded.load_full().ok_or_else(|| FetchError::new("no keys yet"))
            }
        }
    }

    /// Renews keys that will soon be too old, before a login has to wait for it. Without keys there is nothing to renew.
    pub(crate) async fn refresh(&self, now: SystemTime) -> Result<(), FetchError> {
        let is_due = self.store.loaded.load().as_ref().is_some_and(|loaded| loaded.age(now) >= REFRESH_AHEAD);
        if !is_due {
            return Ok(());
        }
        match self.fetch(now) {
            Offer::Begun(fetch) | Offer::Joined(fetch) => fetch.await.map(drop),
            Offer::TooSoon(None) => Ok(()),
            Offer::TooSoon(Some(error)) => Err(error),
        }
    }

    /// Keys among which is the one of this id.
    pub(crate) async fn holding(&self, id: &str, now: SystemTime) -> Result<Arc<Loaded>, Rejection> {
        let loaded = self.current(now).await.map_err(Rejection::KeysUnavailable)?;
        if loaded.keys.contains(id) {
            return Ok(loaded);
        }
        // Entra publishes a new key before it signs with it, so an unknown id is a key that was published since the last
        // fetch, or one that was made up. The interval bounds the requests that made-up ids can cause.
        let renewed = match self.fetch(now) {
            Offer::Begun(fetch) | Offer::Joined(fetch) => fetch.await.map_err(Rejection::KeysUnavailable)?,
            Offer::TooSoon(Some(error)) => return Err(Rejection::KeysUnavailable(error)),
            // Another task may have renewed them since `current` answered.
            Offer::TooSoon(None) => self.store.loaded.load_full().ok_or(Rejection::UnknownKey)?,
        };
        if renewed.keys.contains(id) { Ok(renewed) } else { Err(Rejection::UnknownKey) }
    }

    /// Joins the fetch that is under way, or begins one if the last was long enough ago.
    fn fetch(&self, now: SystemTime) -> Offer {
        let mut state = self.store.state();
        if let Some(running) = &state.running {
            return Offer::Joined(running.clone());
        }
        // A process without any keys can verify nothing, so it asks again sooner.
        let pause = match (&state.last_error, self.store.loaded.load().is_some()) {
            (Some(_), false) => RETRY_AFTER.min(self.refetch_interval),
            _ => self.refetch_interval,
        };
        // A clock that was set back must not stop all fetching: a start in the future counts as long ago.
        let too_soon =
            state.started_at.is_some_and(|at| now.duration_since(at).is_ok_and(|since| since < pause));
        if too_soon {
            return Offer::TooSoon(state.last_error.clone());
        }
        state.started_at = Some(now);
        state.generation += 1;
        let generation = state.generation;
        let (source, rules) = (Arc::clone(&self.source), Arc::clone(&self.rules));
        let store = Arc::downgrade(&self.store);
        let fetch = async move {
            let outcome = load(&*source, &rules, generation, now).await;
            Store::finish(&store, &outcome);
            outcome
        };
        let fetch = fetch.boxed().shared();
        state.running = Some(fetch.clone());
        Offer::Begun(fetch)
    }
}

async fn load(source: &dyn KeySource, rules: &KeyRules, generation: u64, now: SystemTime) -> FetchResult {
    let document = source.fetch().await?;
    let keys = KeySet::parse(&document, rules).map_err(FetchError::new)?;
    Ok(Arc::new(Loaded { keys, generation, fetched_at: now }))
}

impl Loaded {
    /// Zero if the clock was set back since.
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.fetched_at).unwrap_or_default()
    }
}

impl Store {
    fn state(&self) -> MutexGuard<'_, FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the result of a fetch. The fetch has a weak reference to the store, because the store owns the fetch.
    fn finish(store: &Weak<Store>, outcome: &FetchResult) {
        let Some(store) = store.upgrade() else { return };
        let mut state = store.state();
        match outcome {
            Ok(loaded) => {
                store.loaded.store(Some(Arc::clone(loaded)));
                state.last_error = None;
            }
            Err(error) => state.last_error = Some(error.clone()),
        }
        state.running = None;
    }
}
