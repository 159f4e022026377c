//! What clients of the webhook may hold: connections, and memory.
//!
//! An API server shows no certificate to a webhook unless its administrator gives it one, so each pod of the cluster can be a
//! client. A client must not keep the API server from being answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The largest question: an API server takes objects of 3 MiB, and an update has the object twice.
pub(super) const BODY_LIMIT: usize = 7 * 1024 * 1024;
/// A body up to this length is read beside all others. Only one longer body is read and answered at a time.
const SHORT: usize = 256 * 1024;
/// The most memory for the values of a question, as [`memory_of`] estimates it.
const QUESTION_MEMORY: usize = 16 * 1024 * 1024;
/// The same for all questions that are answered at the same time. An answer needs up to three copies of the values.
const MEMORY: usize = 24 * 1024 * 1024;
/// What a question takes at least.
const LEAST_MEMORY: usize = 64 * 1024;
/// [`MEMORY`] is counted in these units.
const UNIT: usize = 1024;

/// Numbers and times that bound what clients hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct WebhookLimits {
    /// Connections at the same time; an API server keeps a few.
    pub(super) connections: usize,
    /// From the TLS handshake to the head of the first question.
    pub(super) first: Duration,
    /// From an answer to the head of the next question. An API server closes an idle connection after 90 seconds
    /// (`http.Transport.IdleConnTimeout`): if the webhook closed it first, a question could be lost on its way.
    pub(super) next: Duration,
    /// From the head of a question to its answer. The API server waits no longer (`timeoutSeconds`).
    pub(super) answer: Duration,
}

impl Default for WebhookLimits {
    fn default() -> Self {
        let [first, next, answer] = [10, 120, 10].map(Duration::from_secs);
        Self { connections: 64, first, next, answer }
    }
}

/// The memory for bodies and values.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    long: Arc<Semaphore>,
    values: Arc<Semaphore>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { long: Arc::new(Semaphore::new(1)), values: Arc::new(Semaphore::new(MEMORY / UNIT)) }
    }
}

impl Memory {
    /// Waits until a body may have this length.
    pub(super) async fn body(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        if length <= SHORT {
            return None;
        }
        self.long.clone().acquire_owned().await.ok()
    }

    /// Waits until there is memory for the values of a question. `None`: they are too many.
    pub(super) async fn values(&self, json: &[u8]) -> Option<OwnedSemaphorePermit> {
        let memory = memory_of(json);
        if memory > QUESTION_MEMORY {
            return None;
        }
        let units = u32::try_from(memory.max(LEAST_MEMORY) / UNIT).ok()?;
        self.values.clone().acquire_many_owned(units).await.ok()
    }
}

/// An upper estimate of the memory of the values in a JSON text, before it is read: 32 bytes for each value, what an array
/// allocates for its first value (4 × 32 bytes), and a node of the tree of an object (11 entries of 56 bytes). Text counts by its
/// length. Characters inside of text count too.
fn memory_of(json: &[u8]) -> usize {
    let each = |byte: &u8| match byte {
        b'{' => 640,
        b'[' => 128,
        b',' | b':' => 32,
        _ => 1,
    };
    json.iter().map(each).sum()
}

/// The connections. If there are too many, a new one takes the place of the one that has waited for its client for the longest time.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Arc<Mutex<TakenSeats>>,
}

#[derive(Debug, Default)]
struct TakenSeats {
    next: u64,
    seats: BTreeMap<u64, SeatState>,
}

#[derive(Debug)]
struct SeatState {
    /// Since when it waits for its client. `None`: it works for its client.
    since: Option<Instant>,
    has_asked: bool,
    close: CancellationToken,
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, TakenSeats> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. `None`: all others work for their clients.
    pub(super) fn take(&self) -> Option<WebhookSeat> {
        let mut taken = self.lock();
        if taken.seats.len() >= self.most {
            let waiting = taken.seats.iter().filter_map(|(number, seat)| Some((seat.since?, *number)));
            let (_, longest) = waiting.min()?;
            if let Some(seat) = taken.seats.remove(&longest) {
                seat.close.cancel();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let close = CancellationToken::new();
        let seat = SeatState { since: Some(Instant::now()), has_asked: false, close: close.clone() };
        taken.seats.insert(number, seat);
        drop(taken);
        Some(WebhookSeat { seats: self.clone(), number, close })
    }
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct WebhookSeat {
    seats: Seats,
    number: u64,
    close: CancellationToken,
}

impl WebhookSeat {
    fn set(&self, set: impl FnOnce(&mut SeatState)) {
        if let Some(seat) = self.seats.lock().seats.get_mut(&self.number) {
            set(seat);
        }
    }

    /// The head of a question was read: its body is waited for.
    pub(super) fn asked(&self) {
        self.set(|seat| {
            seat.has_asked = true;
            seat.since = Some(Instant::now());
        });
    }

    /// The question was read. Until the result is dropped, the connection keeps its place.
    pub(super) fn work(&self) -> Work<'_> {
        self.set(|seat| seat.since = None);
        Work(self)
    }

    /// Ends when the connection is to be closed: another one took its place, or it has asked nothing for this long.
    pub(super) async fn to_be_closed(&self, first: Duration) {
        let silent = async {
            tokio::time::sleep(first).await;
            let has_asked = self.seats.lock().seats.get(&self.number).is_some_and(|seat| seat.has_asked);
            if has_asked {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.close.cancelled() => (),
            () = silent => (),
        }
    }
}

impl Drop for WebhookSeat {
    fn drop(&mut self) {
        self.seats.lock().seats.remove(&self.number);
    }
}

/// The work for a question.
#[derive(Debug)]
pub(super) struct Work<'seat>(&'seat WebhookSeat);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.set(|seat| seat.since = Some(Instant::now()));
    }
}
