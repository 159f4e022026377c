//! Opens sessions before a client asks for them.

use std::time::Duration;

use pgentra_wire::startup::StartupMessage;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Idle;
use super::guards::PendingOpen;
use super::idle::IdleSessions;

/// Sessions that are opened ahead at the same time: few, to spare a server that has just restarted.
const AT_ONCE: usize = 4;
/// How often waiting sessions are checked. It bounds how long an ended session keeps its permit;
/// each session is checked again before a client gets it.
const LOOK: Duration = Duration::from_secs(1);

/// Checks the waiting sessions, and opens so many that `warm` wait with each start-up, until it is
/// dropped. `begin` opens one; `None`: no session may be opened now. `changed` is notified when a
/// session was taken or a start-up is new.
pub async fn keep_full<T: Idle, F: Future<Output = ()> + Send + 'static>(
    idle: IdleSessions<T>,
    warm: usize,
    changed: impl AsRef<Notify>,
    mut begin: impl FnMut(StartupMessage, PendingOpen<T>) -> Option<F>,
) {
    let mut openings = JoinSet::new();
    loop {
        while openings.try_join_next().is_some() {}
        if idle.is_claimed() {
            openings.abort_all();
        }
        let any = idle.sweep(Instant::now());
        for start in idle.missing(warm, Instant::now()) {
            if openings.len() >= AT_ONCE || idle.is_claimed() {
                break;
            }
            let Some(opening) = idle.opening(&start) else { continue };
            let Some(begun) = begin(start, opening) else { break };
            openings.spawn(begun);
        }
        tokio::select! {
            () = changed.as_ref().notified() => {}
            Some(_) = openings.join_next(), if !openings.is_empty() => {}
            () = sleep(LOOK), if any => {}
        }
    }
}
