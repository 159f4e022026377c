//! Clients that write to a ledger without pause, and what they notice of a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::psql::Psql;

/// Clients that stay connected for as long as they can.
const SESSIONS: usize = 4;
/// Between two writes of a client: the processor is for what is tested.
const PAUSE: Duration = Duration::from_millis(50);

/// How clients connect; a test may change the password.
pub(crate) struct Access {
    pub(crate) conninfo: String,
    pub(crate) password: Mutex<String>,
}

/// What the clients have noticed during one fault.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// How sessions ended that were open, with how many.
    pub(crate) ended: BTreeMap<String, usize>,
    /// Why new connections failed, with how many.
    pub(crate) refused: BTreeMap<String, usize>,
    /// The longest time between two writes over new connections that were acknowledged.
    pub(crate) longest: Duration,
    /// How many of those there were.
    pub(crate) connected: usize,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    /// Rows whose commit was acknowledged: the client and its count.
    acknowledged: Mutex<BTreeSet<(usize, usize)>>,
    is_over: AtomicBool,
    /// Counts writes of the clients that stay connected.
    writes: AtomicUsize,
}

/// The clients. Each is a thread with a psql.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts the clients; the table `ledger (client int, n int)` exists.
    pub(crate) fn start(access: &Arc<Access>) -> Self {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for client in 0..=SESSIONS {
            let (shared, access) = (shared.clone(), access.clone());
            threads.push(std::thread::spawn(move || match client {
                0 => connect_again_and_again(&shared, &access),
                _ => stay(client, &shared, &access),
            }));
        }
        Self { shared, threads }
    }

    /// What was noticed since the last call.
    pub(crate) fn seen(&self) -> Seen {
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }

    /// How many writes have been acknowledged, over sessions that stay, and over new connections since [`Writers::seen`].
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.shared.writes.load(Ordering::SeqCst), self.shared.seen.lock().unwrap().connected)
    }

    /// The rows that were acknowledged so far, as `CLIENT,COUNT`.
    pub(crate) fn acknowledged(&self) -> BTreeSet<String> {
        let rows = self.shared.acknowledged.lock().unwrap();
        rows.iter().map(|(client, n)| format!("{client},{n}")).collect()
    }

    /// Ends the clients.
    pub(crate) fn stop(self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Writes one row, and notes its acknowledgement.
    fn write(&self, psql: &mut Psql, client: usize, n: usize) -> bool {
        let is_written = psql.ask(&format!("INSERT INTO ledger VALUES ({client}, {n}) RETURNING 'done'"));
        let is_written = is_written.as_deref() == Some("done");
        if is_written {
            self.acknowledged.lock().unwrap().insert((client, n));
        }
        is_written
    }
}

fn stay(client: usize, shared: &Shared, access: &Access) {
    let mut n = 0;
    while !shared.is_over() {
        let mut psql = Psql::start(&access.conninfo, &access.password.lock().unwrap().clone());
        let first = n;
        loop {
            n += 1;
            if !shared.write(&mut psql, client, n) {
                break;
            }
            shared.writes.fetch_add(1, Ordering::SeqCst);
            if shared.is_over() {
                return;
            }
            std::thread::park_timeout(PAUSE);
        }
        let cause = cause(&psql.error());
        let mut seen = shared.seen.lock().unwrap();
        let list = if n > first + 1 { &mut seen.ended } else { &mut seen.refused };
        *list.entry(cause).or_default() += 1;
        drop(seen);
        std::thread::park_timeout(PAUSE);
    }
}

fn connect_again_and_again(shared: &Shared, access: &Access) {
    let (mut n, mut last) = (0, Instant::now());
    while !shared.is_over() {
        n += 1;
        let mut psql = Psql::start(&access.conninfo, &access.password.lock().unwrap().clone());
        let is_written = shared.write(&mut psql, 0, n);
        let said = psql.error();
        let mut seen = shared.seen.lock().unwrap();
        if is_written {
            seen.longest = seen.longest.max(last.elapsed());
            seen.connected += 1;
            last = Instant::now();
        } else {
            *seen.refused.entry(cause(&said)).or_default() += 1;
        }
        drop(seen);
        std::thread::park_timeout(PAUSE);
    }
}

/// The SQLSTATE in what psql says, with the message; without one, what libpq says.
fn cause(said: &str) -> String {
    let coded = said.lines().find_map(|line| {
        let (code, message) =
            line.split_once("FATAL:  ").or_else(|| line.split_once("ERROR:  "))?.1.split_once(": ")?;
        (code.len() == 5).then(|| format!("{code} {message}"))
    });
    let plain = || {
        said.lines().map(str::trim).find(|line| !line.is_empty()).map(|line| {
            line.rsplit_once("failed: ")
                .map_or(line, |(_, cause)| cause)
                .trim_start_matches("psql: error: ")
                .to_owned()
        })
    };
    coded.or_else(plain).unwrap_or_else(|| "closed without a message".to_owned())
}
