//! Server sessions that wait for a client, by the start-up with which they were opened.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use pgentra_wire::startup::StartupMessage;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Idle;
use super::bucket::{Bucket, Buckets, Shared, is_related};
use super::fingerprint::Latest;
use super::guards::{Checkin, Claim, PendingOpen};

/// Start-ups with pooled sessions; a further one replaces the least recently used. Applications
/// have one or two each; a client that varies its start-up each time gains nothing from the pool.
const START_UPS: usize = 32;
/// A start-up that no client used for this time is dropped: for an hourly job the session would be
/// renewed twenty times for each use.
const FORGET: Duration = Duration::from_secs(30 * 60);
/// Pause of the refill when the server's connection limit is reached.
const FULL: Duration = Duration::from_secs(30);

/// The result of asking the pool for a session.
pub(super) enum Checkout<T> {
    Ready(T),
    /// A session is being cleaned and may become available; the channel closes if it does not.
    Soon(oneshot::Receiver<T>),
    Nothing,
}

/// The result of asking the pool to free a session permit.
pub enum Reclaimed<T: Idle> {
    /// The session whose permit is taken.
    Session(T),
    /// No session waits, but some are being opened or cleaned. They will not be pooled until this
    /// is dropped.
    Coming(Claim<T>),
    /// No session waits or comes.
    Nothing,
}

/// Which pooled sessions are ended when the server's connection limit is reached. The limit may be
/// that of the server, the role or the database; the server's message is in any language, so it
/// does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// One of the same role or database.
    Related,
    /// One of any other role and database.
    Any,
    /// All of the same role or database: the limit may have been lowered.
    AllRelated,
    /// One that is being opened or cleaned.
    Coming,
}

impl Eviction {
    /// In the order in which they are tried: the cheapest first.
    pub(super) const ALL: [Self; 4] = [Self::Related, Self::Any, Self::AllRelated, Self::Coming];
}

/// The sessions of a pool that wait for a client. Clones share them.
pub struct IdleSessions<T>(Shared<T>);

impl<T> Clone for IdleSessions<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Idle> IdleSessions<T> {
    /// An empty pool that is closed: it stores nothing yet. `ready` counts waiting sessions and may
    /// be shared with other pools.
    pub fn new(max_age: Duration, ready: Gauge) -> Self {
        let by_start = HashMap::new();
        let wanted = VecDeque::new();
        let (open, claims, paused) = (false, 0, None);
        Self(Shared::new(Buckets { by_start, open, claims, wanted, max_age, paused, ready }))
    }

    /// Stores sessions from now on.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// Ends all waiting sessions and stores none from now on.
    pub fn close(&self) {
        let mut buckets = self.lock();
        buckets.open = false;
        buckets.by_start.clear();
        buckets.wanted.clear();
    }

    /// Takes a session with exactly this start-up.
    pub(super) fn take(&self, start: &StartupMessage, now: Instant) -> Checkout<T> {
        let mut buckets = self.lock();
        let Some(bucket) = buckets.by_start.get_mut(start) else {
            return Checkout::Nothing;
        };
        bucket.asked = now;
        while let Some(mut waiting) = bucket.waiting.pop() {
            if bucket.is_fit(&mut waiting, now) {
                return Checkout::Ready(waiting.session);
            }
        }
        bucket.queue.retain(|waiter| !waiter.is_closed());
        if bucket.queue.len() < bucket.returning {
            let (sender, receiver) = oneshot::channel();
            bucket.queue.push_back(sender);
            return Checkout::Soon(receiver);
        }
        Checkout::Nothing
    }

    /// The last fingerprint of this start-up. `None`: no session of it is pooled.
    pub(super) fn latest(&self, start: &StartupMessage) -> Option<Arc<Latest>> {
        self.lock().by_start.get(start).map(|bucket| Arc::clone(&bucket.latest))
    }

    /// Stores a start-up that a client was signed in with. `true`: it is new.
    pub fn learn(&self, start: &StartupMessage, now: Instant) -> bool {
        let mut buckets = self.lock();
        if !buckets.open {
            return false;
        }
        if let Some(bucket) = buckets.by_start.get_mut(start) {
            bucket.asked = now;
            bucket.succeeded(now);
            return false;
        }
        if buckets.by_start.len() >= START_UPS {
            let oldest = buckets.by_start.iter().min_by_key(|(_, bucket)| bucket.asked);
            let oldest = oldest.map(|(start, _)| start.clone());
            oldest.and_then(|start| buckets.by_start.remove(&start));
        }
        let bucket = Bucket::new(buckets.max_age, now);
        buckets.by_start.insert(start.clone(), bucket);
        true
    }

    /// Announces a session that is being cleaned. `None`: it would not be pooled.
    pub fn returning(&self, start: &StartupMessage) -> Option<Checkin<T>> {
        self.lock().by_start.get_mut(start)?.returning += 1;
        Some(Checkin { pool: self.0.clone(), start: start.clone() })
    }

    /// Announces a session that is being opened by the refill. `None`: it would not be pooled.
    pub(super) fn opening(&self, start: &StartupMessage) -> Option<PendingOpen<T>> {
        self.lock().by_start.get_mut(start)?.opening += 1;
        Some(PendingOpen { pool: self.0.clone(), start: start.clone() })
    }

    /// Takes out the sessions that are ended to free connections for a client with this start-up.
    pub(super) fn make_room(&self, start: &StartupMessage, eviction: Eviction) -> Vec<T> {
        let mut buckets = self.lock();
        let is_related = |other: &StartupMessage| is_related(start, other);
        match eviction {
            Eviction::Related => Vec::from_iter(buckets.evict(is_related)),
            Eviction::Any => Vec::from_iter(buckets.evict(|_| true)),
            Eviction::AllRelated => {
                let buckets = buckets.by_start.iter_mut().filter(|(start, _)| is_related(start));
                buckets.flat_map(|(_, bucket)| bucket.empty()).collect()
            }
            Eviction::Coming => Vec::new(),
        }
    }

    /// The next session that was opened or cleaned. `None`: none is on its way. The channel closes
    /// if it fails.
    pub(super) fn coming(&self) -> Option<oneshot::Receiver<T>> {
        let mut buckets = self.lock();
        buckets.wanted.retain(|waiter| !waiter.is_closed());
        (buckets.wanted.len() < buckets.coming()).then(|| {
            let (sender, receiver) = oneshot::channel();
            buckets.wanted.push_back(sender);
            receiver
        })
    }

    /// Takes out all waiting sessions of this start-up; the start-up stays known.
    pub(super) fn empty(&self, start: &StartupMessage) -> Vec<T> {
        self.lock().by_start.get_mut(start).map(Bucket::empty).unwrap_or_default()
    }

    /// Drops the start-ups of a database, or all of them. The waiting sessions are returned, and
    /// those that are being opened or cleaned will not be pooled.
    pub(super) fn forget(&self, database: Option<&[u8]>) -> Vec<T> {
        let mut buckets = self.lock();
        let is_meant = |start: &StartupMessage| database.is_none_or(|name| start.database() == name);
        let meant = buckets.by_start.extract_if(|start, _| is_meant(start));
        meant.flat_map(|(_, mut bucket)| bucket.empty()).collect()
    }

    /// Frees a session permit for a client when all of them are taken.
    pub fn claim(&self) -> Reclaimed<T> {
        let mut buckets = self.lock();
        if let Some(session) = buckets.evict(|_| true) {
            return Reclaimed::Session(session);
        }
        if buckets.coming() == 0 {
            return Reclaimed::Nothing;
        }
        buckets.claims += 1;
        Reclaimed::Coming(Claim(self.0.clone()))
    }

    /// Whether a client waits for the permit of a session that the refill opens.
    pub(super) fn is_claimed(&self) -> bool {
        self.lock().claims > 0
    }

    /// The server's connection limit is reached: the refill pauses.
    pub fn pause(&self, now: Instant) {
        self.lock().paused = Some(now + FULL);
    }

    /// Ends sessions that are too old or unusable, and drops unused start-ups. `false`: the pool is
    /// empty and the refill task can sleep until the next start-up.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut buckets = self.lock();
        buckets.by_start.retain(|_, bucket| bucket.asked + FORGET > now);
        for bucket in buckets.by_start.values_mut() {
            for mut waiting in std::mem::take(&mut bucket.waiting) {
                if bucket.is_fit(&mut waiting, now) {
                    bucket.waiting.push(waiting);
                }
            }
        }
        !buckets.by_start.is_empty()
    }

    /// A start-up for each session that is missing where `warm` of them should wait, the most
    /// recently used first.
    pub(super) fn missing(&self, warm: usize, now: Instant) -> Vec<StartupMessage> {
        let buckets = self.lock();
        if buckets.paused.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let mut wanting: Vec<_> = buckets.by_start.iter().filter(|(_, bucket)| bucket.retry <= now).collect();
        wanting.sort_by_key(|(_, bucket)| std::cmp::Reverse(bucket.asked));
        let missing = wanting.into_iter().flat_map(|(start, bucket)| {
            let there = bucket.waiting.len() + bucket.opening + bucket.returning;
            std::iter::repeat_n(start.clone(), warm.saturating_sub(there))
        });
        missing.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets<T>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use pgentra_wire::startup::ProtocolVersion;

    use super::*;
    use crate::kept::{Latest, Unanswered, Unhealthy};

    const AGE: Duration = Duration::from_secs(180);

    #[derive(Debug, PartialEq)]
    struct Fake(u32, Result<(), Unhealthy>);

    impl Idle for Fake {
        fn check(&mut self) -> Result<(), Unhealthy> {
            self.1
        }

        async fn is_as_new(&mut self, _: &Latest, _: Instant) -> Result<bool, Unanswered> {
            Ok(true)
        }

        async fn end(self) {}
    }

    fn start(user: &str) -> StartupMessage {
        StartupMessage::new(ProtocolVersion::V3_0, user).unwrap()
    }

    fn pool() -> (IdleSessions<Fake>, Instant) {
        let pool = IdleSessions::new(AGE, Gauge::default());
        pool.open();
        (pool, Instant::now())
    }

    /// Puts usable sessions into a bucket.
    fn filled(pool: &IdleSessions<Fake>, user: &str, ids: impl IntoIterator<Item = u32>, now: Instant) {
        pool.learn(&start(user), now);
        for id in ids {
            pool.opening(&start(user)).unwrap().opened(Fake(id, Ok(())), now);
        }
    }

    fn len(pool: &IdleSessions<Fake>) -> i64 {
        let waiting = pool.lock().by_start.values().map(|bucket| bucket.waiting.len() as i64).sum();
        assert_eq!(pool.lock().ready.get(), waiting);
        waiting
    }

    fn taken(pool: &IdleSessions<Fake>, user: &str, now: Instant) -> Option<u32> {
        match pool.take(&start(user), now) {
            Checkout::Ready(Fake(id, _)) => Some(id),
            Checkout::Soon(_) => panic!("one is being cleaned"),
            Checkout::Nothing => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_comes_first_once_and_for_the_same_start_up_alone() {
        let (pool, now) = pool();
        filled(&pool, "a", [1, 2], now);
        assert_eq!(taken(&pool, "b", now), None);
        let other = start("a").with("options", "-c work_mem=1MB").unwrap();
        assert!(matches!(pool.take(&other, now), Checkout::Nothing));
        let ids = [taken(&pool, "a", now), taken(&pool, "a", now), taken(&pool, "a", now)];
        assert_eq!(ids, [Some(2), Some(1), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_and_the_disturbed_are_never_handed_out() {
        let (pool, now) = pool();
        filled(&pool, "a", [1], now);
        assert_eq!(taken(&pool, "a", now + AGE), None);
        filled(&pool, "a", [2], now);
        pool.opening(&start("a")).unwrap().opened(Fake(3, Err(Unhealthy::Disturbed)), now);
        assert_eq!(taken(&pool, "a", now), Some(2));
        assert_eq!(len(&pool), 0);

        filled(&pool, "a", [4], now);
        pool.opening(&start("a")).unwrap().opened(Fake(5, Err(Unhealthy::Disturbed)), now);
        assert!(pool.sweep(now + AGE - Duration::from_secs(1)));
        assert_eq!(len(&pool), 1);
        assert!(pool.sweep(now + AGE));
        assert_eq!(len(&pool), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_servers_own_idle_timeout_is_learned() {
        let (pool, now) = pool();
        pool.learn(&start("a"), now);
        let ended = Fake(1, Err(Unhealthy::IdleTimeout));
        pool.opening(&start("a")).unwrap().opened(ended, now);
        let minute = Duration::from_secs(60);
        pool.sweep(now + minute);
        filled(&pool, "a", [2], now + minute);
        assert_eq!(taken(&pool, "a", now + minute + minute / 2), None);
        filled(&pool, "a", [3], now + minute);
        assert_eq!(taken(&pool, "a", now + minute + minute / 3), Some(3));
        // The limit holds for one start-up, as the setting may be that of a role or a database.
        filled(&pool, "b", [4], now);
        assert_eq!(taken(&pool, "b", now + minute), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_what_clients_asked_for() {
        let (pool, now) = pool();
        assert!(pool.missing(2, now).is_empty());
        assert!(!pool.sweep(now));
        assert!(pool.learn(&start("a"), now));
        assert!(!pool.learn(&start("a"), now));
        let later = now + Duration::from_secs(1);
        filled(&pool, "b", [1], later);
        assert_eq!(pool.missing(2, later), [start("b"), start("a"), start("a")]);
        let opening = pool.opening(&start("a"));
        assert_eq!(pool.missing(2, later), [start("b"), start("a")]);
        drop(opening);
        assert_eq!(pool.missing(1, later), [start("a")]);
        assert!(pool.missing(0, later).is_empty());
        // Until no client asks any more.
        assert!(pool.sweep(now + FORGET));
        assert_eq!(pool.missing(2, now + FORGET), [start("b"), start("b")], "both sessions were too old");
        assert!(!pool.sweep(later + FORGET));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_answered_with_patience() {
        let (pool, now) = pool();
        pool.learn(&start("a"), now);
        let mut at = now;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            pool.opening(&start("a")).unwrap().failed(at);
            let pause = Duration::from_secs(seconds);
            assert!(pool.missing(1, at + pause - Duration::from_millis(1)).is_empty(), "{seconds}");
            at += pause;
            assert_eq!(pool.missing(1, at).len(), 1, "{seconds}");
        }
        pool.opening(&start("a")).unwrap().failed(at);
        pool.learn(&start("a"), at);
        assert_eq!(pool.missing(1, at).len(), 1, "the pause must end when a client was signed in");
        pool.pause(at);
        pool.learn(&start("a"), at);
        assert!(pool.missing(1, at).is_empty(), "the server is full");
        assert_eq!(pool.missing(1, at + FULL).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn start_ups_are_bounded() {
        let (pool, now) = pool();
        for number in 0..START_UPS {
            let later = now + Duration::from_millis(number as u64);
            filled(&pool, &number.to_string(), [0], later);
        }
        let last = now + Duration::from_secs(1);
        assert_eq!(taken(&pool, "0", last), Some(0));
        filled(&pool, "one more", [0], last);
        assert_eq!(taken(&pool, "1", last), None, "the least recently used start-up stayed");
        assert_eq!(taken(&pool, "2", last), Some(0));
        assert_eq!(len(&pool), START_UPS as i64 - 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_for_a_session_that_comes_back() {
        let (pool, now) = pool();
        pool.learn(&start("a"), now);
        let returning = pool.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = pool.take(&start("a"), now) else { panic!("it is being cleaned") };
        assert!(matches!(pool.take(&start("a"), now), Checkout::Nothing), "one client for each session");
        returning.arrived(Fake(1, Ok(())), now);
        assert_eq!(waiter.await.unwrap(), Fake(1, Ok(())));

        // Cleaning fails.
        let returning = pool.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = pool.take(&start("a"), now) else { panic!("it is being cleaned") };
        drop(returning);
        assert!(waiter.await.is_err());

        // The client does not wait any longer.
        let returning = pool.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = pool.take(&start("a"), now) else { panic!("it is being cleaned") };
        drop(waiter);
        returning.arrived(Fake(2, Ok(())), now);
        assert_eq!(taken(&pool, "a", now), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_needs_a_place_gets_it() {
        let (pool, now) = pool();
        assert!(matches!(pool.claim(), Reclaimed::Nothing));
        filled(&pool, "new", [1], now + Duration::from_secs(1));
        filled(&pool, "old", [2, 3], now);
        for id in [2, 3, 1] {
            let Reclaimed::Session(Fake(evicted, _)) = pool.claim() else { panic!("{id} waits") };
            assert_eq!(evicted, id);
        }
        let opening = pool.opening(&start("old")).unwrap();
        let Reclaimed::Coming(claim) = pool.claim() else { panic!("one comes") };
        assert!(pool.is_claimed());
        opening.opened(Fake(4, Ok(())), now);
        assert_eq!(len(&pool), 0, "the session was pooled although a client waits for its permit");
        drop(claim);
        assert!(!pool.is_claimed());
        assert!(matches!(pool.claim(), Reclaimed::Nothing));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_relieved_of_what_costs_the_least() {
        let (pool, now) = pool();
        let ids = |sessions: Vec<Fake>| sessions.into_iter().map(|Fake(id, _)| id).collect::<Vec<_>>();
        let same_role = start("a").with("database", "x").unwrap();
        let same_database = start("b").with("database", "a").unwrap();
        let later = |seconds| now + Duration::from_secs(seconds);
        for (start, session, at) in [
            (&start("other"), 1, now),
            (&same_role, 2, later(1)),
            (&same_role, 3, later(1)),
            (&same_database, 4, later(2)),
            (&same_database, 5, later(2)),
        ] {
            pool.learn(start, at);
            pool.opening(start).unwrap().opened(Fake(session, Ok(())), at);
        }
        let client = start("a").with("options", "-c work_mem=1MB").unwrap();
        assert_eq!(ids(pool.make_room(&client, Eviction::Related)), [2]);
        assert_eq!(ids(pool.make_room(&client, Eviction::Any)), [1], "the least recently used goes first");
        let mut related = ids(pool.make_room(&client, Eviction::AllRelated));
        related.sort_unstable();
        assert_eq!(related, [3, 4, 5]);
        assert_eq!((len(&pool), pool.make_room(&client, Eviction::Related).len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_relieved_of_what_comes() {
        let (pool, now) = pool();
        assert!(pool.coming().is_none(), "nothing comes");
        pool.learn(&start("a"), now);
        let (opening, returning) = (pool.opening(&start("a")).unwrap(), pool.returning(&start("a")).unwrap());
        let (first, second) = (pool.coming().unwrap(), pool.coming().unwrap());
        assert!(pool.coming().is_none(), "one client for each session");
        opening.opened(Fake(1, Ok(())), now);
        assert_eq!(first.await.unwrap(), Fake(1, Ok(())));
        drop(returning);
        assert!(second.await.is_err(), "it failed");
        // A client that can use the session goes before one that needs its permit.
        let returning = pool.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = pool.take(&start("a"), now) else { panic!("it is being cleaned") };
        let wanted = pool.coming().unwrap();
        returning.arrived(Fake(2, Ok(())), now);
        assert_eq!(waiter.await.unwrap(), Fake(2, Ok(())));
        assert!(wanted.await.is_err());
        // No client waits for it any longer.
        let opening = pool.opening(&start("a")).unwrap();
        drop(pool.coming().unwrap());
        opening.opened(Fake(3, Ok(())), now);
        assert_eq!(taken(&pool, "a", now), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_is_let_go_of_and_the_others_are_not() {
        let (pool, now) = pool();
        let at = start("a").with("database", "x").unwrap();
        pool.learn(&at, now);
        for id in [1, 2] {
            pool.opening(&at).unwrap().opened(Fake(id, Ok(())), now);
        }
        // Its database has the role's name.
        filled(&pool, "b", [3], now);
        let (opening, returning) = (pool.opening(&at).unwrap(), pool.returning(&at).unwrap());
        assert_eq!(pool.forget(Some(b"x")), [Fake(1, Ok(())), Fake(2, Ok(()))]);
        opening.opened(Fake(4, Ok(())), now);
        returning.arrived(Fake(5, Ok(())), now);
        assert_eq!(len(&pool), 1);
        assert!(pool.missing(1, now).is_empty(), "the refill opened it again before a client came");
        assert!(pool.learn(&at, now), "the start-up is new after a client came");
        assert_eq!(pool.forget(Some(b"b")), [Fake(3, Ok(()))]);
        pool.opening(&at).unwrap().opened(Fake(6, Ok(())), now);
        assert_eq!(pool.empty(&at), [Fake(6, Ok(()))]);
        assert_eq!(pool.missing(1, now), std::slice::from_ref(&at), "emptied, it is still known");
        assert!(pool.forget(None).is_empty() && pool.missing(1, now).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_when_it_is_closed() {
        let (pool, now) = pool();
        filled(&pool, "a", [1], now);
        let (opening, returning) = (pool.opening(&start("a")).unwrap(), pool.returning(&start("a")).unwrap());
        let Checkout::Ready(_) = pool.take(&start("a"), now) else { panic!("it is ready") };
        let Checkout::Soon(waiter) = pool.take(&start("a"), now) else { panic!("it is being cleaned") };
        pool.close();
        assert!(waiter.await.is_err());
        opening.opened(Fake(2, Ok(())), now);
        returning.arrived(Fake(3, Ok(())), now);
        assert!(!pool.learn(&start("a"), now));
        assert!(pool.opening(&start("a")).is_none() && pool.returning(&start("a")).is_none());
        assert_eq!(len(&pool), 0);
    }
}
