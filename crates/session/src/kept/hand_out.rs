//! Gives waiting sessions to clients, and ends them where the server has no connection free.

use std::time::Duration;

use futures_util::future::join_all;
use pgentra_wire::startup::StartupMessage;
use tokio::time::{Instant, timeout};

use super::Idle;
use super::idle::{Checkout, Eviction, IdleSessions};
use crate::login_error::chain;

/// How long a client waits for a session that is being cleaned, before a new one is opened.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// How long a client waits for the connection of a session that is being opened or cleaned.
pub const PLACE: Duration = Duration::from_secs(2);

/// The rules by which waiting sessions are ended, without those that were tried already.
#[derive(Debug)]
pub struct Evictions(std::slice::Iter<'static, Eviction>);

impl Default for Evictions {
    fn default() -> Self {
        Self(Eviction::ALL.iter())
    }
}

impl<T: Idle> IdleSessions<T> {
    /// A session for this start-up that equals a new one, by an answer of the server that is not older
    /// than `since`. Sessions that are not `usable` are dropped. Where a new session would differ, all
    /// that wait with this start-up are ended first, so that the server has their connections free.
    pub async fn hand_out(
        &self,
        start: &StartupMessage,
        since: Instant,
        usable: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let latest = self.latest(start)?;
        loop {
            let mut session = match self.take(start, Instant::now()) {
                Checkout::Ready(session) => session,
                Checkout::Soon(waiter) => timeout(ON_ITS_WAY, waiter).await.ok()?.ok()?,
                Checkout::Nothing => return None,
            };
            if !usable(&session) {
                continue;
            }
            match session.is_as_new(&latest, since).await {
                Ok(true) => return Some(session),
                Ok(false) => {
                    tracing::info!("pooled sessions are ended: a new session would differ from them");
                    let others = self.empty(start);
                    join_all(others.into_iter().chain([session]).map(T::end)).await;
                    return None;
                }
                Err(error) => {
                    tracing::info!(error = chain(&error), "a pooled session cannot be used");
                    // The others may have lost their connection too: the client does not wait for a
                    // check of each.
                    drop(self.empty(start));
                    return None;
                }
            }
        }
    }

    /// Ends waiting sessions by the next of these rules that finds any, for a client with this start-up
    /// that met the server's connection limit. `false`: there are none.
    pub async fn relieve(&self, start: &StartupMessage, rules: &mut Evictions) -> bool {
        for eviction in &mut rules.0 {
            let ended = match eviction {
                Eviction::Coming => match self.coming() {
                    Some(coming) => Vec::from_iter(timeout(PLACE, coming).await.ok().and_then(Result::ok)),
                    None => continue,
                },
                eviction => self.make_room(start, *eviction),
            };
            if !ended.is_empty() || *eviction == Eviction::Coming {
                join_all(ended.into_iter().map(T::end)).await;
                return true;
            }
        }
        false
    }

    /// Ends the waiting sessions of a database, or all of them, and returns their number. Those that
    /// are being opened or cleaned will not be stored, and none is opened until a client asks again.
    pub async fn end_all(&self, database: Option<&[u8]>) -> usize {
        join_all(self.forget(database).into_iter().map(T::end)).await.len()
    }
}
