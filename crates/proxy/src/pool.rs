//! Server sessions that wait for a client, by the start-up they were opened with.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgentra_wire::startup::StartupMessage;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::check::Latest;

/// Different start-ups that sessions are kept for; a further one takes the place of the one that was asked for the
/// longest time ago. Applications have one or two each; a client that makes up a new one each time gains nothing.
const SHELVES: usize = 32;
/// A start-up that nobody asked for in this time is forgotten: an hourly job is not worth a session that is renewed
/// twenty times for each use.
const FORGET: Duration = Duration::from_secs(30 * 60);
/// How long opening ahead pauses after a failure; twice as long after each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest of those pauses.
const BACK_OFF_LIMIT: Duration = Duration::from_secs(60);
/// How long opening ahead pauses when the server has no place left.
const FULL: Duration = Duration::from_secs(30);
/// A server whose `idle_session_timeout` is shorter leaves no time to use a session that waits.
const SHORTEST_AGE: Duration = Duration::from_secs(1);

/// Something that can wait for a client.
pub(crate) trait Idle {
    /// Whether the server left it alone. Whatever it sent meanwhile makes it unfit.
    fn check(&mut self) -> Result<(), Unhealthy>;
}

/// Why a session is unfit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unhealthy {
    /// The server ended it because it was idle (57P05).
    IdleTimeout,
    /// It ended for another reason, or said something.
    Disturbed,
    /// It is not kept any longer.
    Outlived,
}

/// What there is for a client.
pub(crate) enum Checkout<T> {
    Ready(T),
    /// One is on its way back; it may come to nothing.
    Soon(oneshot::Receiver<T>),
    Nothing,
}

/// What there is for a client that needs a place among the sessions.
pub(crate) enum Reclaimed<T: Idle> {
    /// The session that gives up its place.
    Session(T),
    /// Sessions that are being opened ahead or come back will not be kept until this is dropped.
    Coming(Claim<T>),
    Nothing,
}

/// Which kept sessions are ended where the server has no place for a new one. It may be the server that is full, the role
/// or the database; its words for that are in any language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// One of the same role or database.
    Related,
    /// One of any other.
    Any,
    /// All of the same role or database: the limit may be lower than it was.
    AllRelated,
    /// One that is being opened ahead or comes back.
    Coming,
}

impl Room {
    /// In the order in which they are tried: those first that cost the least.
    pub(crate) const ALL: [Self; 4] = [Self::Related, Self::Any, Self::AllRelated, Self::Coming];
}

/// Sessions that wait. Clones share them.
pub(crate) struct Pool<T>(Arc<Mutex<Buckets<T>>>);

struct Buckets<T> {
    by_start: HashMap<StartupMessage, Bucket<T>>,
    open: bool,
    claims: usize,
    /// Clients that need the server's place of a session which is being opened ahead or comes back.
    wanted: VecDeque<oneshot::Sender<T>>,
    max_age: Duration,
    /// Until then nothing is opened ahead.
    paused: Option<Instant>,
    /// How many wait.
    ready: Gauge,
}

struct Bucket<T> {
    /// The last came last, and goes first: it is the least likely to have been cut off.
    waiting: Vec<Waiting<T>>,
    opening: usize,
    returning: usize,
    queue: VecDeque<oneshot::Sender<T>>,
    asked: Instant,
    latest: Arc<Latest>,
    max_age: Duration,
    failures: u32,
    retry: Instant,
}

struct Waiting<T> {
    session: T,
    since: Instant,
    _counted: Counted,
}

/// Something that is there.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<T: Idle> Pool<T> {
    /// A stock that is closed: it keeps nothing yet. `ready` counts what waits, in other stocks too perhaps.
    pub(crate) fn new(max_age: Duration, ready: Gauge) -> Self {
        let by_start = HashMap::new();
        let wanted = VecDeque::new();
        let (open, claims, paused) = (false, 0, None);
        Self(Arc::new(Mutex::new(Buckets { by_start, open, claims, wanted, max_age, paused, ready })))
    }

    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// Ends all sessions that wait, and keeps none from now on.
    pub(crate) fn close(&self) {
        let mut shelves = self.lock();
        shelves.open = false;
        shelves.by_start.clear();
        shelves.wanted.clear();
    }

    /// A session for exactly this start-up.
    pub(crate) fn take(&self, start: &StartupMessage, now: Instant) -> Checkout<T> {
        let mut shelves = self.lock();
        let Some(shelf) = shelves.by_start.get_mut(start) else {
            return Checkout::Nothing;
        };
        shelf.asked = now;
        while let Some(mut waiting) = shelf.waiting.pop() {
            if shelf.is_fit(&mut waiting, now) {
                return Checkout::Ready(waiting.session);
            }
        }
        shelf.queue.retain(|waiter| !waiter.is_closed());
        if shelf.queue.len() < shelf.returning {
            let (sender, receiver) = oneshot::channel();
            shelf.queue.push_back(sender);
            return Checkout::Soon(receiver);
        }
        Checkout::Nothing
    }

    /// What was last known of this start-up. `None`: no session of it is kept.
    pub(crate) fn latest(&self, start: &StartupMessage) -> Option<Arc<Latest>> {
        self.lock().by_start.get(start).map(|shelf| Arc::clone(&shelf.latest))
    }

    /// Remembers a start-up that a client was signed in with. `true`: it is new.
    pub(crate) fn learn(&self, start: &StartupMessage, now: Instant) -> bool {
        let mut shelves = self.lock();
        if !shelves.open {
            return false;
        }
        if let Some(shelf) = shelves.by_start.get_mut(start) {
            shelf.asked = now;
            shelf.succeeded(now);
            return false;
        }
        if shelves.by_start.len() >= SHELVES {
            let oldest = shelves.by_start.iter().min_by_key(|(_, shelf)| shelf.asked);
            let oldest = oldest.map(|(start, _)| start.clone());
            oldest.and_then(|start| shelves.by_start.remove(&start));
        }
        let shelf = Bucket {
            waiting: Vec::new(),
            opening: 0,
            returning: 0,
            queue: VecDeque::new(),
            asked: now,
            latest: Arc::default(),
            max_age: shelves.max_age,
            failures: 0,
            retry: now,
        };
        shelves.by_start.insert(start.clone(), shelf);
        true
    }

    /// Announces a session that comes back. `None`: it would not be kept.
    pub(crate) fn returning(&self, start: &StartupMessage) -> Option<Checkin<T>> {
        self.lock().by_start.get_mut(start)?.returning += 1;
        Some(Checkin { stock: self.clone(), start: start.clone() })
    }

    /// Announces a session that is being opened ahead. `None`: it would not be kept.
    pub(crate) fn opening(&self, start: &StartupMessage) -> Option<PendingOpen<T>> {
        self.lock().by_start.get_mut(start)?.opening += 1;
        Some(PendingOpen { stock: self.clone(), start: start.clone() })
    }

    /// The sessions that give up the server's places for a client with this start-up.
    pub(crate) fn make_room(&self, start: &StartupMessage, room: Room) -> Vec<T> {
        let mut shelves = self.lock();
        let is_related = |other: &StartupMessage| is_related(start, other);
        match room {
            Room::Related => Vec::from_iter(shelves.evict(is_related)),
            Room::Any => Vec::from_iter(shelves.evict(|_| true)),
            Room::AllRelated => {
                let shelves = shelves.by_start.iter_mut().filter(|(start, _)| is_related(start));
                shelves.flat_map(|(_, shelf)| shelf.empty()).collect()
            }
            Room::Coming => Vec::new(),
        }
    }

    /// The next session that was opened ahead or came back. `None`: there will be none. The end of the channel: it came to
    /// nothing.
    pub(crate) fn coming(&self) -> Option<oneshot::Receiver<T>> {
        let mut shelves = self.lock();
        shelves.wanted.retain(|waiter| !waiter.is_closed());
        (shelves.wanted.len() < shelves.coming()).then(|| {
            let (sender, receiver) = oneshot::channel();
            shelves.wanted.push_back(sender);
            receiver
        })
    }

    /// All sessions that wait for this start-up; it stays known.
    pub(crate) fn empty(&self, start: &StartupMessage) -> Vec<T> {
        self.lock().by_start.get_mut(start).map(Bucket::empty).unwrap_or_default()
    }

    /// Forgets the start-ups of a database, or all of them: sessions that wait are returned, and those that are being opened
    /// ahead or come back will not be kept.
    pub(crate) fn forget(&self, database: Option<&[u8]>) -> Vec<T> {
        let mut shelves = self.lock();
        let is_meant = |start: &StartupMessage| database.is_none_or(|name| start.database() == name);
        let meant = shelves.by_start.extract_if(|start, _| is_meant(start));
        meant.flat_map(|(_, mut shelf)| shelf.empty()).collect()
    }

    /// A place for a client, where all of them are taken.
    pub(crate) fn claim(&self) -> Reclaimed<T> {
        let mut shelves = self.lock();
        if let Some(session) = shelves.evict(|_| true) {
            return Reclaimed::Session(session);
        }
        if shelves.coming() == 0 {
            return Reclaimed::Nothing;
        }
        shelves.claims += 1;
        Reclaimed::Coming(Claim(self.clone()))
    }

    /// Whether a client waits for the place of a session that is being opened ahead.
    pub(crate) fn is_claimed(&self) -> bool {
        self.lock().claims > 0
    }

    /// The server has no place left: nothing is opened ahead for a while.
    pub(crate) fn pause(&self, now: Instant) {
        self.lock().paused = Some(now + FULL);
    }

    /// Ends sessions that are too old or were disturbed, and forgets start-ups that nobody asks for. `false`: there is
    /// nothing to look after until another one is learned.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut shelves = self.lock();
        shelves.by_start.retain(|_, shelf| shelf.asked + FORGET > now);
        for shelf in shelves.by_start.values_mut() {
            for mut waiting in std::mem::take(&mut shelf.waiting) {
                if shelf.is_fit(&mut waiting, now) {
                    shelf.waiting.push(waiting);
                }
            }
        }
        !shelves.by_start.is_empty()
    }

    /// A start-up for each session that is missing where `warm` of them should wait, those asked for last first.
    pub(crate) fn missing(&self, warm: usize, now: Instant) -> Vec<StartupMessage> {
        let shelves = self.lock();
        if shelves.paused.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let mut wanting: Vec<_> = shelves.by_start.iter().filter(|(_, shelf)| shelf.retry <= now).collect();
        wanting.sort_by_key(|(_, shelf)| std::cmp::Reverse(shelf.asked));
        let missing = wanting.into_iter().flat_map(|(start, shelf)| {
            let there = shelf.waiting.len() + shelf.opening + shelf.returning;
            std::iter::repeat_n(start.clone(), warm.saturating_sub(there))
        });
        missing.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Idle> Buckets<T> {
    /// The session that is missed least.
    fn evict(&mut self, is_meant: impl Fn(&StartupMessage) -> bool) -> Option<T> {
        let shelves =
            self.by_start.iter_mut().filter(|(start, shelf)| !shelf.waiting.is_empty() && is_meant(start));
        let (_, shelf) = shelves.min_by_key(|(_, shelf)| shelf.asked)?;
        Some(shelf.waiting.remove(0).session)
    }

    /// How many are being opened ahead or come back.
    fn coming(&self) -> usize {
        self.by_start.values().map(|shelf| shelf.opening + shelf.returning).sum()
    }

    /// Whoever waits for more than comes is told by the end of the channel.
    fn came_to_nothing(&mut self) {
        let coming = self.coming();
        self.wanted.truncate(coming);
    }

    /// Gives a session to whoever waits for it, or lets it wait. One that nobody may have is ended.
    fn put(&mut self, start: &StartupMessage, mut session: T, now: Instant) {
        let Some(shelf) = self.by_start.get_mut(start) else { return };
        while let Some(waiter) = shelf.queue.pop_front() {
            match waiter.send(session) {
                Ok(()) => return,
                Err(back) => session = back,
            }
        }
        while let Some(waiter) = self.wanted.pop_front() {
            match waiter.send(session) {
                Ok(()) => return,
                Err(back) => session = back,
            }
        }
        if self.claims == 0 {
            shelf.waiting.push(Waiting { session, since: now, _counted: Counted::new(&self.ready) });
        }
    }
}

/// Whether sessions of these start-ups count for a limit that is common to both.
fn is_related(one: &StartupMessage, other: &StartupMessage) -> bool {
    one.user() == other.user() || one.database() == other.database()
}

impl<T> Bucket<T> {
    fn empty(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|waiting| waiting.session).collect()
    }
}

impl<T: Idle> Bucket<T> {
    fn is_fit(&mut self, waiting: &mut Waiting<T>, now: Instant) -> bool {
        let age = now.saturating_duration_since(waiting.since);
        match waiting.session.check() {
            Ok(()) => age < self.max_age,
            Err(spoiled) => {
                tracing::debug!(?spoiled, ?age, "a session that waited was ended");
                if spoiled == Unhealthy::IdleTimeout {
                    self.max_age = self.max_age.min(age / 2).max(SHORTEST_AGE);
                }
                false
            }
        }
    }

    fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.retry = self.retry.min(now);
    }

    fn failed(&mut self, now: Instant) {
        let pause = BACK_OFF.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.retry = now + pause.min(BACK_OFF_LIMIT);
    }
}

/// A session that comes back. Dropped, it does not.
pub(crate) struct Checkin<T: Idle> {
    stock: Pool<T>,
    start: StartupMessage,
}

impl<T: Idle> Checkin<T> {
    pub(crate) fn arrived(self, session: T, now: Instant) {
        self.stock.lock().put(&self.start, session, now);
    }
}

impl<T: Idle> Drop for Checkin<T> {
    fn drop(&mut self) {
        let mut shelves = self.stock.lock();
        if let Some(shelf) = shelves.by_start.get_mut(&self.start) {
            shelf.returning = shelf.returning.saturating_sub(1);
            // Whoever waits for more than comes is told by the end of the channel.
            shelf.queue.truncate(shelf.returning);
        }
        shelves.came_to_nothing();
    }
}

/// A session that is being opened ahead. Dropped, it was given up.
pub(crate) struct PendingOpen<T: Idle> {
    stock: Pool<T>,
    start: StartupMessage,
}

impl<T: Idle> PendingOpen<T> {
    pub(crate) fn opened(self, session: T, now: Instant) {
        let mut shelves = self.stock.lock();
        if let Some(shelf) = shelves.by_start.get_mut(&self.start) {
            shelf.succeeded(now);
        }
        shelves.put(&self.start, session, now);
    }

    pub(crate) fn failed(self, now: Instant) {
        if let Some(shelf) = self.stock.lock().by_start.get_mut(&self.start) {
            shelf.failed(now);
        }
    }
}

impl<T: Idle> Drop for PendingOpen<T> {
    fn drop(&mut self) {
        let mut shelves = self.stock.lock();
        if let Some(shelf) = shelves.by_start.get_mut(&self.start) {
            shelf.opening = shelf.opening.saturating_sub(1);
        }
        shelves.came_to_nothing();
    }
}

/// A client that waits for a place.
pub(crate) struct Claim<T: Idle>(Pool<T>);

impl<T: Idle> Drop for Claim<T> {
    fn drop(&mut self) {
        self.0.lock().claims -= 1;
    }
}

#[cfg(test)]
mod tests {
    use pgentra_wire::startup::ProtocolVersion;

    use super::*;

    const AGE: Duration = Duration::from_secs(180);

    #[derive(Debug, PartialEq)]
    struct Fake(u32, Result<(), Unhealthy>);

    impl Idle for Fake {
        fn check(&mut self) -> Result<(), Unhealthy> {
            self.1
        }
    }

    fn start(user: &str) -> StartupMessage {
        StartupMessage::new(ProtocolVersion::V3_0, user).unwrap()
    }

    fn stock() -> (Pool<Fake>, Instant) {
        let stock = Pool::new(AGE, Gauge::default());
        stock.open();
        (stock, Instant::now())
    }

    /// Puts sessions that are fit on a shelf.
    fn stocked(stock: &Pool<Fake>, user: &str, ids: impl IntoIterator<Item = u32>, now: Instant) {
        stock.learn(&start(user), now);
        for id in ids {
            stock.opening(&start(user)).unwrap().opened(Fake(id, Ok(())), now);
        }
    }

    fn len(stock: &Pool<Fake>) -> i64 {
        let waiting = stock.lock().by_start.values().map(|shelf| shelf.waiting.len() as i64).sum();
        assert_eq!(stock.lock().ready.get(), waiting);
        waiting
    }

    fn taken(stock: &Pool<Fake>, user: &str, now: Instant) -> Option<u32> {
        match stock.take(&start(user), now) {
            Checkout::Ready(Fake(id, _)) => Some(id),
            Checkout::Soon(_) => panic!("one comes back"),
            Checkout::Nothing => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_comes_first_once_and_for_the_same_start_up_alone() {
        let (stock, now) = stock();
        stocked(&stock, "a", [1, 2], now);
        assert_eq!(taken(&stock, "b", now), None);
        let other = start("a").with("options", "-c work_mem=1MB").unwrap();
        assert!(matches!(stock.take(&other, now), Checkout::Nothing));
        let ids = [taken(&stock, "a", now), taken(&stock, "a", now), taken(&stock, "a", now)];
        assert_eq!(ids, [Some(2), Some(1), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_and_the_disturbed_are_never_handed_out() {
        let (stock, now) = stock();
        stocked(&stock, "a", [1], now);
        assert_eq!(taken(&stock, "a", now + AGE), None);
        stocked(&stock, "a", [2], now);
        stock.opening(&start("a")).unwrap().opened(Fake(3, Err(Unhealthy::Disturbed)), now);
        assert_eq!(taken(&stock, "a", now), Some(2));
        assert_eq!(len(&stock), 0);

        stocked(&stock, "a", [4], now);
        stock.opening(&start("a")).unwrap().opened(Fake(5, Err(Unhealthy::Disturbed)), now);
        assert!(stock.sweep(now + AGE - Duration::from_secs(1)));
        assert_eq!(len(&stock), 1);
        assert!(stock.sweep(now + AGE));
        assert_eq!(len(&stock), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_servers_own_idle_timeout_is_learned() {
        let (stock, now) = stock();
        stock.learn(&start("a"), now);
        let ended = Fake(1, Err(Unhealthy::IdleTimeout));
        stock.opening(&start("a")).unwrap().opened(ended, now);
        let minute = Duration::from_secs(60);
        stock.sweep(now + minute);
        stocked(&stock, "a", [2], now + minute);
        assert_eq!(taken(&stock, "a", now + minute + minute / 2), None);
        stocked(&stock, "a", [3], now + minute);
        assert_eq!(taken(&stock, "a", now + minute + minute / 3), Some(3));
        // Of one start-up, as the setting may be a role's or a database's.
        stocked(&stock, "b", [4], now);
        assert_eq!(taken(&stock, "b", now + minute), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_what_clients_asked_for() {
        let (stock, now) = stock();
        assert!(stock.missing(2, now).is_empty());
        assert!(!stock.sweep(now));
        assert!(stock.learn(&start("a"), now));
        assert!(!stock.learn(&start("a"), now));
        let later = now + Duration::from_secs(1);
        stocked(&stock, "b", [1], later);
        assert_eq!(stock.missing(2, later), [start("b"), start("a"), start("a")]);
        let opening = stock.opening(&start("a"));
        assert_eq!(stock.missing(2, later), [start("b"), start("a")]);
        drop(opening);
        assert_eq!(stock.missing(1, later), [start("a")]);
        assert!(stock.missing(0, later).is_empty());
        // Until nobody asks any more.
        assert!(stock.sweep(now + FORGET));
        assert_eq!(stock.missing(2, now + FORGET), [start("b"), start("b")], "both were too old");
        assert!(!stock.sweep(later + FORGET));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_answered_with_patience() {
        let (stock, now) = stock();
        stock.learn(&start("a"), now);
        let mut at = now;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            stock.opening(&start("a")).unwrap().failed(at);
            let pause = Duration::from_secs(seconds);
            assert!(stock.missing(1, at + pause - Duration::from_millis(1)).is_empty(), "{seconds}");
            at += pause;
            assert_eq!(stock.missing(1, at).len(), 1, "{seconds}");
        }
        stock.opening(&start("a")).unwrap().failed(at);
        stock.learn(&start("a"), at);
        assert_eq!(stock.missing(1, at).len(), 1, "a client was let in");
        stock.pause(at);
        stock.learn(&start("a"), at);
        assert!(stock.missing(1, at).is_empty(), "the server is full");
        assert_eq!(stock.missing(1, at + FULL).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn start_ups_are_bounded() {
        let (stock, now) = stock();
        for number in 0..SHELVES {
            let later = now + Duration::from_millis(number as u64);
            stocked(&stock, &number.to_string(), [0], later);
        }
        let last = now + Duration::from_secs(1);
        assert_eq!(taken(&stock, "0", last), Some(0));
        stocked(&stock, "one more", [0], last);
        assert_eq!(taken(&stock, "1", last), None, "it was asked for the longest time ago");
        assert_eq!(taken(&stock, "2", last), Some(0));
        assert_eq!(len(&stock), SHELVES as i64 - 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_for_a_session_that_comes_back() {
        let (stock, now) = stock();
        stock.learn(&start("a"), now);
        let returning = stock.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = stock.take(&start("a"), now) else { panic!("it comes back") };
        assert!(matches!(stock.take(&start("a"), now), Checkout::Nothing), "one for one");
        returning.arrived(Fake(1, Ok(())), now);
        assert_eq!(waiter.await.unwrap(), Fake(1, Ok(())));

        // It comes to nothing.
        let returning = stock.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = stock.take(&start("a"), now) else { panic!("it comes back") };
        drop(returning);
        assert!(waiter.await.is_err());

        // The client does not wait any longer.
        let returning = stock.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = stock.take(&start("a"), now) else { panic!("it comes back") };
        drop(waiter);
        returning.arrived(Fake(2, Ok(())), now);
        assert_eq!(taken(&stock, "a", now), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_needs_a_place_gets_it() {
        let (stock, now) = stock();
        assert!(matches!(stock.claim(), Reclaimed::Nothing));
        stocked(&stock, "new", [1], now + Duration::from_secs(1));
        stocked(&stock, "old", [2, 3], now);
        for id in [2, 3, 1] {
            let Reclaimed::Session(Fake(evicted, _)) = stock.claim() else { panic!("{id} waits") };
            assert_eq!(evicted, id);
        }
        let opening = stock.opening(&start("old")).unwrap();
        let Reclaimed::Coming(claim) = stock.claim() else { panic!("one comes") };
        assert!(stock.is_claimed());
        opening.opened(Fake(4, Ok(())), now);
        assert_eq!(len(&stock), 0, "its place is for the client");
        drop(claim);
        assert!(!stock.is_claimed());
        assert!(matches!(stock.claim(), Reclaimed::Nothing));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_relieved_of_what_costs_the_least() {
        let (stock, now) = stock();
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
            stock.learn(start, at);
            stock.opening(start).unwrap().opened(Fake(session, Ok(())), at);
        }
        let client = start("a").with("options", "-c work_mem=1MB").unwrap();
        assert_eq!(ids(stock.make_room(&client, Room::Related)), [2]);
        assert_eq!(ids(stock.make_room(&client, Room::Any)), [1], "it was asked for the longest time ago");
        let mut related = ids(stock.make_room(&client, Room::AllRelated));
        related.sort_unstable();
        assert_eq!(related, [3, 4, 5]);
        assert_eq!((len(&stock), stock.make_room(&client, Room::Related).len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_relieved_of_what_comes() {
        let (stock, now) = stock();
        assert!(stock.coming().is_none(), "nothing comes");
        stock.learn(&start("a"), now);
        let (opening, returning) =
            (stock.opening(&start("a")).unwrap(), stock.returning(&start("a")).unwrap());
        let (first, second) = (stock.coming().unwrap(), stock.coming().unwrap());
        assert!(stock.coming().is_none(), "one for one");
        opening.opened(Fake(1, Ok(())), now);
        assert_eq!(first.await.unwrap(), Fake(1, Ok(())));
        drop(returning);
        assert!(second.await.is_err(), "it came to nothing");
        // A client that can use it goes before one that needs its place.
        let returning = stock.returning(&start("a")).unwrap();
        let Checkout::Soon(waiter) = stock.take(&start("a"), now) else { panic!("it comes back") };
        let wanted = stock.coming().unwrap();
        returning.arrived(Fake(2, Ok(())), now);
        assert_eq!(waiter.await.unwrap(), Fake(2, Ok(())));
        assert!(wanted.await.is_err());
        // Nobody waits for it any longer.
        let opening = stock.opening(&start("a")).unwrap();
        drop(stock.coming().unwrap());
        opening.opened(Fake(3, Ok(())), now);
        assert_eq!(taken(&stock, "a", now), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_is_let_go_of_and_the_others_are_not() {
        let (stock, now) = stock();
        let at = start("a").with("database", "x").unwrap();
        stock.learn(&at, now);
        for id in [1, 2] {
            stock.opening(&at).unwrap().opened(Fake(id, Ok(())), now);
        }
        // Its database has the role's name.
        stocked(&stock, "b", [3], now);
        let (opening, returning) = (stock.opening(&at).unwrap(), stock.returning(&at).unwrap());
        assert_eq!(stock.forget(Some(b"x")), [Fake(1, Ok(())), Fake(2, Ok(()))]);
        opening.opened(Fake(4, Ok(())), now);
        returning.arrived(Fake(5, Ok(())), now);
        assert_eq!(len(&stock), 1);
        assert!(stock.missing(1, now).is_empty(), "it is not opened ahead again before a client comes");
        assert!(stock.learn(&at, now), "then it is");
        assert_eq!(stock.forget(Some(b"b")), [Fake(3, Ok(()))]);
        stock.opening(&at).unwrap().opened(Fake(6, Ok(())), now);
        assert_eq!(stock.empty(&at), [Fake(6, Ok(()))]);
        assert_eq!(stock.missing(1, now), std::slice::from_ref(&at), "emptied, it is still known");
        assert!(stock.forget(None).is_empty() && stock.missing(1, now).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_when_it_is_closed() {
        let (stock, now) = stock();
        stocked(&stock, "a", [1], now);
        let (opening, returning) =
            (stock.opening(&start("a")).unwrap(), stock.returning(&start("a")).unwrap());
        let Checkout::Ready(_) = stock.take(&start("a"), now) else { panic!("it is ready") };
        let Checkout::Soon(waiter) = stock.take(&start("a"), now) else { panic!("it comes back") };
        stock.close();
        assert!(waiter.await.is_err());
        opening.opened(Fake(2, Ok(())), now);
        returning.arrived(Fake(3, Ok(())), now);
        assert!(!stock.learn(&start("a"), now));
        assert!(stock.opening(&start("a")).is_none() && stock.returning(&start("a")).is_none());
        assert_eq!(len(&stock), 0);
    }
}
