//! The connections of one listener that are not sessions yet: how many there may be, and which one
//! is closed when there are too many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Client, ClientOrigin, Socket};
use super::limits::Limits;
use super::login_error::{LoginError, silent, too_many_clients};

/// How long a connection may keep its turn while another one waits. By then a working client has
/// sent its password, also if it opens some hundred TLS connections at once.
const SAFE: Duration = Duration::from_secs(3);
/// When the system has no file handles left, one in `SHED` connections without a turn is closed.
const SHED: usize = 8;

/// The limits for connections in start-up.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections without a turn: they have sent nothing yet, wait for their turn, or read their
    /// last message. Each takes a file handle and some kilobytes. When there is one more, the
    /// oldest of the origin with the most is closed.
    pub held: usize,
    /// Connections with a turn: they are in start-up and authentication. Each takes the memory of a
    /// TLS connection.
    pub turns: usize,
}

/// The connections of one listener in start-up. Clones share one state.
#[derive(Clone)]
pub struct Starting(Arc<SharedSlots>);

struct SharedSlots {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    held: usize,
    turns: usize,
    waiting: usize,
    origins: HashMap<ClientOrigin, OriginConnections>,
}

/// The connections of one origin by their numbers, which are in the order of arrival.
#[derive(Default)]
struct OriginConnections {
    /// Connections that have sent nothing yet, or read their last message.
    idle: BTreeMap<u64, Arc<SlotSignals>>,
    waiting: BTreeMap<u64, Arc<SlotSignals>>,
    served: BTreeMap<u64, (Instant, Arc<SlotSignals>)>,
}

#[derive(Default)]
struct SlotSignals {
    turn: Notify,
    closed: Notify,
    is_closed: AtomicBool,
}

/// One connection's entry. Dropping it frees its space.
pub struct Seat {
    shared: Arc<SharedSlots>,
    origin: ClientOrigin,
    id: u64,
    signals: Arc<SlotSignals>,
}

impl Starting {
    /// For one listener, within these bounds.
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(SharedSlots { bounds, state: Mutex::default() }))
    }

    /// The limits of connections in start-up, taken from the limits of a listener.
    pub fn within(limits: &Limits) -> Self {
        Self::new(Bounds { held: limits.waiting, turns: limits.starting })
    }

    /// Adds a connection that was accepted. It never waits: at the limit, another connection is
    /// closed.
    pub fn enter(&self, origin: ClientOrigin) -> Seat {
        let signals = Arc::new(SlotSignals::default());
        let mut state = self.0.state();
        if state.held >= self.0.bounds.held.max(1) {
            state.close_held();
        }
        state.next += 1;
        state.held += 1;
        let id = state.next;
        state.origins.entry(origin).or_default().idle.insert(id, Arc::clone(&signals));
        drop(state);
        Seat { shared: Arc::clone(&self.0), origin, id, signals }
    }

    /// Closes some connections, because the system has no file handles left.
    pub fn shed(&self) {
        let mut state = self.0.state();
        for _ in 0..state.held.div_ceil(SHED) {
            state.close_held();
        }
    }
}

impl SharedSlots {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the oldest connection without a turn of the origin that has the most. A connection
    /// that has sent something is closed only if that origin has no other.
    fn close_held(&mut self) {
        // Of two equal origins, the one whose connection came first.
        let most = self.origins.iter().max_by_key(|(_, group)| {
            let first = group.idle.keys().chain(group.waiting.keys()).next();
            (group.idle.len() + group.waiting.len(), Reverse(first.copied()))
        });
        let Some(origin) = most.map(|(origin, _)| *origin) else { return };
        let Some(group) = self.origins.get_mut(&origin) else { return };
        let closed = group.idle.pop_first().or_else(|| {
            let first = group.waiting.pop_first();
            self.waiting -= usize::from(first.is_some());
            first
        });
        if let Some((_, signals)) = closed {
            self.held -= 1;
            signals.close();
        }
        self.forget(origin);
    }

    /// If a connection waits for a turn, closes the connection that has had its turn for the
    /// longest time, of the origin with the most turns, unless that time is shorter than [`SAFE`].
    fn close_served(&mut self, now: Instant) {
        if self.waiting == 0 {
            return;
        }
        let most = self.origins.iter().max_by_key(|(_, group)| group.served.len());
        let Some(origin) = most.map(|(origin, _)| *origin) else { return };
        let Some(group) = self.origins.get_mut(&origin) else { return };
        let oldest =
            group.served.iter().min_by_key(|(_, (since, _))| *since).map(|(id, (since, _))| (*id, *since));
        let Some((id, since)) = oldest else { return };
        if now.duration_since(since) < SAFE {
            return;
        }
        if let Some((_, signals)) = group.served.remove(&id) {
            self.turns -= 1;
            signals.close();
        }
        self.forget(origin);
        self.hand_over(now);
    }

    /// Gives this connection a turn if one is free; otherwise the connection waits, and the result
    /// is false.
    fn ask_for_turn(&mut self, origin: ClientOrigin, id: u64, turns: usize) -> bool {
        let now = Instant::now();
        let Some(group) = self.origins.get_mut(&origin) else { return false };
        let Some(signals) = group.idle.remove(&id) else { return false };
        if self.turns < turns {
            group.served.insert(id, (now, signals));
            self.held -= 1;
            self.turns += 1;
            return true;
        }
        group.waiting.insert(id, signals);
        self.waiting += 1;
        self.close_served(now);
        false
    }

    /// Gives a free turn to the origin that has the fewest turns, and there to the connection that
    /// waits longest.
    fn hand_over(&mut self, now: Instant) {
        let waiting = self.origins.values_mut().filter(|group| !group.waiting.is_empty());
        let next = waiting.min_by_key(|group| (group.served.len(), group.waiting.keys().next().copied()));
        let Some(group) = next else { return };
        if let Some((id, signals)) = group.waiting.pop_first() {
            self.waiting -= 1;
            self.held -= 1;
            self.turns += 1;
            signals.turn.notify_one();
            group.served.insert(id, (now, signals));
        }
    }

    /// Removes a connection, with or without a turn.
    fn remove(&mut self, origin: ClientOrigin, id: u64) {
        let Some(group) = self.origins.get_mut(&origin) else { return };
        if group.idle.remove(&id).is_some() {
            self.held -= 1;
        } else if group.waiting.remove(&id).is_some() {
            self.held -= 1;
            self.waiting -= 1;
        } else if group.served.remove(&id).is_some() {
            self.turns -= 1;
            self.hand_over(Instant::now());
        }
        self.forget(origin);
    }

    fn forget(&mut self, origin: ClientOrigin) {
        let is_empty = |group: &OriginConnections| {
            group.idle.is_empty() && group.waiting.is_empty() && group.served.is_empty()
        };
        if self.origins.get(&origin).is_some_and(is_empty) {
            self.origins.remove(&origin);
        }
    }
}

impl SlotSignals {
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.closed.notify_one();
    }
}

impl Seat {
    /// Waits until the client has sent something, at the latest until `by`, and until the
    /// connection has its turn.
    pub async fn arrive<S: Socket>(&self, client: &Client<S>, by: Instant) -> Result<(), LoginError> {
        let arrived = async {
            timeout_at(by, client.speaks()).await.map_err(|_| silent())??;
            self.turn().await;
            Ok(())
        };
        tokio::select! {
            biased;
            () = self.closed() => Err(crowded()),
            arrived = arrived => arrived,
        }
    }

    /// Runs the start-up and authentication until the turn is taken away.
    pub async fn ask<T>(&self, asking: impl Future<Output = Result<T, LoginError>>) -> Result<T, LoginError> {
        let insist = async {
            sleep(SAFE).await;
            self.shared.state().close_served(Instant::now());
            std::future::pending().await
        };
        tokio::select! {
            biased;
            asked = asking => asked,
            () = self.closed() => Err(crowded()),
            never = insist => never,
        }
    }

    /// The client has authenticated: from now on it counts as a session.
    pub fn admitted(&self) {
        self.shared.state().remove(self.origin, self.id);
    }

    /// The client now only reads its last message and gives up its turn. Returns whether there is
    /// time to wait for the client to read it.
    pub fn leave(&self) -> bool {
        let mut state = self.shared.state();
        state.remove(self.origin, self.id);
        if self.is_closed() {
            return false;
        }
        if state.held >= self.shared.bounds.held.max(1) {
            state.close_held();
        }
        state.held += 1;
        state.origins.entry(self.origin).or_default().idle.insert(self.id, Arc::clone(&self.signals));
        true
    }

    /// Waits until this connection is closed to free its space for another one.
    pub async fn closed(&self) {
        self.signals.closed.notified().await;
    }

    fn is_closed(&self) -> bool {
        self.signals.is_closed.load(Ordering::Acquire)
    }

    /// Waits for a turn. A connection that was closed waits for ever: see [`Seat::closed`].
    async fn turn(&self) {
        let has_turn =
            self.shared.state().ask_for_turn(self.origin, self.id, self.shared.bounds.turns.max(1));
        if !has_turn {
            self.signals.turn.notified().await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.state().remove(self.origin, self.id);
    }
}

fn crowded() -> LoginError {
    too_many_clients()
        .with_detail("Others wait to sign in, and this client had not done its part of the sign-in yet.")
        .with_hint("Connect again.")
        .into()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn origin(address: &str) -> ClientOrigin {
        ClientOrigin::network(address.parse::<IpAddr>().unwrap())
    }

    fn starting(held: usize, turns: usize) -> Starting {
        Starting::new(Bounds { held, turns })
    }

    fn closed(seats: &[Seat]) -> Vec<usize> {
        seats.iter().enumerate().filter(|(_, seat)| seat.is_closed()).map(|(number, _)| number).collect()
    }

    /// Whether the connection has a turn now.
    async fn has_turn(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::ZERO, seat.turn()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_one_of_the_largest_origin_makes_room() {
        let starting = starting(4, 1);
        let many: Vec<_> = (0..3).map(|_| starting.enter(origin("192.0.2.1"))).collect();
        let few: Vec<_> = (0..3).map(|_| starting.enter(origin("192.0.2.2"))).collect();
        assert_eq!((closed(&many), closed(&few)), (vec![0, 1], vec![]));
        // Users of this machine are separate origins, and so are IPv6 networks.
        let seats = [ClientOrigin::User(Some(1)), origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1")];
        let seats: Vec<_> = seats.into_iter().map(|origin| starting.enter(origin)).collect();
        assert_eq!(closed(&seats), Vec::<usize>::new());
        assert_eq!((closed(&many), closed(&few)), (vec![0, 1, 2], vec![0, 1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_goes_to_the_origin_with_the_fewest() {
        let starting = starting(100, 2);
        let many: Vec<_> = (0..5).map(|_| starting.enter(origin("192.0.2.1"))).collect();
        let mut turns = Vec::new();
        for seat in &many {
            turns.push(has_turn(seat).await);
        }
        assert_eq!(turns, [true, true, false, false, false]);
        let other = starting.enter(origin("192.0.2.2"));
        assert!(!has_turn(&other).await);
        many[0].admitted();
        assert_eq!(
            starting.0.state().origins[&origin("192.0.2.2")].served.len(),
            1,
            "the last to come is served"
        );
        drop(other);
        assert_eq!(starting.0.state().origins[&origin("192.0.2.1")].served.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_safe_for_some_seconds_only_while_others_wait() {
        let starting = starting(100, 2);
        let idle: Vec<_> = (0..2).map(|_| starting.enter(origin("192.0.2.1"))).collect();
        for seat in &idle {
            assert!(has_turn(seat).await);
        }
        tokio::time::advance(SAFE * 10).await;
        assert_eq!(closed(&idle), Vec::<usize>::new(), "a connection was closed below the limit");
        let next = starting.enter(origin("192.0.2.2"));
        next.turn().await;
        assert_eq!(closed(&idle), [0]);
        // Both are within their safe time, and one ends by itself.
        idle[1].admitted();
        let (second, third) = (starting.enter(origin("192.0.2.2")), starting.enter(origin("192.0.2.2")));
        second.turn().await;
        let began = Instant::now();
        let asked = tokio::join!(next.ask(std::future::pending::<Result<(), LoginError>>()), third.turn());
        assert!(matches!(asked.0, Err(LoginError::Rejected(fields)) if fields.sqlstate() == "53300"));
        assert_eq!(began.elapsed(), SAFE);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_stays_of_those_that_are_gone() {
        let starting = starting(3, 1);
        let seats: Vec<_> =
            (0..10).map(|number| starting.enter(origin(&format!("192.0.2.{}", number % 3)))).collect();
        for seat in &seats {
            has_turn(seat).await;
        }
        for seat in seats.iter().step_by(2) {
            seat.leave();
        }
        starting.shed();
        drop(seats);
        let state = starting.0.state();
        assert_eq!((state.held, state.turns, state.waiting, state.origins.len()), (0, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_last_message_costs_no_turn() {
        let starting = starting(1, 1);
        let refused = starting.enter(origin("192.0.2.1"));
        assert!(has_turn(&refused).await);
        assert!(refused.leave());
        let next = starting.enter(origin("192.0.2.1"));
        assert!(has_turn(&next).await);
        assert!(refused.is_closed(), "a closed connection still takes space");
        assert!(!refused.leave());
    }
}
