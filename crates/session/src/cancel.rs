//! Maps the cancel keys of clients to the sessions that they may cancel.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pgentra_wire::backend::BackendKeyData;
use pgentra_wire::startup::{CancelKey, CancelRequest};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::sync::Semaphore;

/// Length in bytes of a key for clients of protocol 3.0, which allows no other length.
const SHORT_KEY: usize = 4;
/// Length in bytes of a key for clients of protocol 3.2, as PostgreSQL 18 makes them.
const LONG_KEY: usize = 32;

/// Cancel requests that one table forwards at the same time: each opens a connection to the server.
const AT_ONCE: usize = 8;
/// Requests with one key that may wait while another one is forwarded; a further one is answered at
/// once.
const WAITING: u32 = 16;

/// The keys given to clients, each with what cancels its session: the server's key, or more. Clones
/// share one table.
///
/// A client never gets the server's own key, which it could use to cancel over a direct connection
/// to the server. The process id is the server's, because clients show it to people.
pub struct CancelTable<T = CancelRequest>(Arc<Registrations<T>>);

struct Registrations<T> {
    keys: Mutex<HashMap<CancelRequest, CancelEntry<T>>>,
    at_once: Semaphore,
}

#[derive(Clone)]
struct CancelEntry<T> {
    session: T,
    requests: Arc<Requests>,
}

/// The requests with one key.
#[derive(Default)]
struct Requests {
    /// Requests received so far.
    came: AtomicU64,
    /// Requests that wait now.
    waiting: AtomicU32,
    /// The value of `came` when the last request was forwarded. Locked while a request is
    /// forwarded.
    covered: tokio::sync::Mutex<u64>,
}

/// The result of a cancel request. The client gets no answer in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// No session has this key. The request is ignored, as in PostgreSQL: the client cannot tell
    /// whether a key exists.
    UnknownKey,
    /// The request was forwarded.
    Forwarded,
    /// The request could not be forwarded; the log has the reason.
    Failed,
    /// Another request with the same key was forwarded after this one arrived.
    WithAnother,
}

impl<T: Clone> CancelTable<T> {
    /// Makes a key for a client that leads to `session`. The table removes it when the registration
    /// is dropped.
    pub fn insert(
        &self,
        process_id: u32,
        long: bool,
        session: T,
    ) -> io::Result<(BackendKeyData, Registration<T>)> {
        // Two sessions can share a process id for a moment, when the system reuses the id of one
        // that ended. A key that is in use already is drawn again.
        loop {
            let client = CancelRequest { process_id, key: random_key(long)? };
            let mut table = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if table.contains_key(&client) {
                continue;
            }
            table.insert(client.clone(), CancelEntry { session, requests: Arc::default() });
            let handed_out = BackendKeyData { process_id, key: client.key.clone() };
            return Ok((handed_out, Registration { table: self.clone(), client }));
        }
    }

    /// Forwards a request by `pass`, which gets what cancels the session.
    ///
    /// Each request leads to one that is passed on after it came, so that it stops the statement that its client means. With one key
    /// they are passed on one after the other, and all that come meanwhile are passed on as one; with different keys
    /// `AT_ONCE` at the same time.
    ///
    /// Keys are compared by a hash table with a random seed, so the time of the comparison tells
    /// nothing about a key.
    pub async fn forward_cancel<E: Display>(
        &self,
        request: &CancelRequest,
        pass: impl AsyncFnOnce(T) -> Result<(), E>,
    ) -> Passed {
        let Some(CancelEntry { session, requests }) = self.find(request) else {
            tracing::debug!("a cancel request with an unknown key");
            return Passed::UnknownKey;
        };
        let number = requests.came.fetch_add(1, Ordering::SeqCst) + 1;
        // A request that waits already is forwarded later and covers this one.
        let Some(_waiting) = WaitGuard::begin(&requests.waiting) else { return Passed::WithAnother };
        let mut covered = requests.covered.lock().await;
        if *covered >= number {
            return Passed::WithAnother;
        }
        // The semaphore is never closed.
        let _turn = self.0.at_once.acquire().await;
        let came = requests.came.load(Ordering::SeqCst);
        let passed = pass(session).await;
        *covered = came;
        match passed {
            Ok(()) => Passed::Forwarded,
            Err(error) => {
                tracing::warn!(%error, "a cancel request could not be forwarded");
                Passed::Failed
            }
        }
    }

    fn find(&self, request: &CancelRequest) -> Option<CancelEntry<T>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).get(request).cloned()
    }
}

struct WaitGuard<'a>(&'a AtomicU32);

impl<'a> WaitGuard<'a> {
    fn begin(waiting: &'a AtomicU32) -> Option<Self> {
        let one_more = |waiting: u32| (waiting < WAITING).then_some(waiting + 1);
        waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T> Clone for CancelTable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for CancelTable<T> {
    fn default() -> Self {
        Self(Arc::new(Registrations { keys: Mutex::default(), at_once: Semaphore::new(AT_ONCE) }))
    }
}

/// Keeps a client's key valid until it is dropped.
pub struct Registration<T = CancelRequest> {
    table: CancelTable<T>,
    client: CancelRequest,
}

impl Registration {
    /// The server process behind the session.
    pub fn process_id(&self) -> u32 {
        self.client.process_id
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        self.table.0.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
    }
}

fn random_key(long: bool) -> io::Result<CancelKey> {
    let mut key = [0; LONG_KEY];
    let key = &mut key[..if long { LONG_KEY } else { SHORT_KEY }];
    OsRng.try_fill_bytes(key).map_err(io::Error::other)?;
    CancelKey::new(Bytes::copy_from_slice(key)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server's own key.
    fn real(process_id: u32) -> CancelRequest {
        CancelRequest { process_id, key: CancelKey::new(Bytes::from_static(b"real")).unwrap() }
    }

    fn register(table: &CancelTable, process_id: u32, long: bool) -> (BackendKeyData, Registration) {
        table.insert(process_id, long, real(process_id)).unwrap()
    }

    #[test]
    fn a_key_lives_as_long_as_its_registration() {
        let table = CancelTable::default();
        let (client, registration) = register(&table, 7, false);
        assert_eq!(client.process_id, 7);
        assert_eq!(client.key.expose().len(), 4);
        let request = CancelRequest { process_id: 7, key: client.key };
        assert_eq!(table.find(&request).unwrap().session.key.expose(), b"real");
        drop(registration);
        assert!(table.find(&request).is_none());
        assert!(table.0.keys.lock().unwrap().is_empty());
    }

    #[test]
    fn the_servers_own_key_is_of_no_use() {
        let table = CancelTable::default();
        let (_, _registration) = register(&table, 7, true);
        assert!(table.find(&real(7)).is_none());
    }

    #[test]
    fn keys_differ_even_for_one_process_id() {
        let table = CancelTable::default();
        let (one, _one) = register(&table, 7, true);
        let (two, two_registered) = register(&table, 7, true);
        assert_eq!(one.key.expose().len(), 32);
        assert_ne!(one.key, two.key);
        drop(two_registered);
        assert!(table.find(&CancelRequest { process_id: 7, key: one.key }).is_some());
    }

    /// Forwards requests to a server that takes a second for each; returns when each was begun, and
    /// with which key.
    async fn passed(keys: &[u32], at: impl Fn(usize) -> u64) -> (Vec<(u64, u32)>, usize) {
        use tokio::time::{Duration, Instant, sleep};
        let table = CancelTable::default();
        let registered: Vec<_> = (0..=20).map(|number| register(&table, number, true)).collect();
        let log = Arc::new(Mutex::new(Vec::new()));
        let began = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for (number, key) in keys.iter().enumerate() {
            let (table, log, wait) = (table.clone(), Arc::clone(&log), Duration::from_millis(at(number)));
            let client = registered[usize::try_from(*key).unwrap()].0.key.clone();
            let request = CancelRequest { process_id: *key, key: client };
            all.spawn(async move {
                sleep(wait).await;
                let pass = async |server: CancelRequest| {
                    log.lock()
                        .unwrap()
                        .push((u64::try_from(began.elapsed().as_millis()).unwrap(), server.process_id));
                    sleep(Duration::from_secs(1)).await;
                    Ok::<_, io::Error>(())
                };
                table.forward_cancel(&request, pass).await == Passed::WithAnother
            });
        }
        let with_another = all.join_all().await.into_iter().filter(|with_another| *with_another).count();
        let log = log.lock().unwrap().clone();
        (log, with_another)
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_with_one_key_is_passed_on_twice() {
        let (log, with_another) = passed(&[7; 300], |_| 0).await;
        assert_eq!((log, with_another), (vec![(0, 7), (1000, 7)], 298));
    }

    /// A request that arrives while another is forwarded may mean the next statement.
    #[tokio::test(start_paused = true)]
    async fn each_request_is_followed_by_one_that_is_passed_on() {
        let (log, with_another) = passed(&[7, 7, 7, 8], |number| [0, 100, 1100, 100][number]).await;
        assert_eq!(log, [(0, 7), (100, 8), (1000, 7), (2000, 7)]);
        assert_eq!(with_another, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_passed_on_at_the_same_time() {
        let keys: Vec<_> = (0..20).collect();
        let (log, _) = passed(&keys, |_| 0).await;
        let at = |when| log.iter().filter(|(at, _)| *at == when).count();
        assert_eq!((at(0), at(1000), at(2000)), (AT_ONCE, AT_ONCE, 4));
    }
}
