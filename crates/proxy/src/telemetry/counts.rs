//! The counters of one target.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgentra_connect::{ConnectErrorKind, Timings};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::ended::Ended;
use super::history::History;
use super::live::{Live, LiveSession};
use super::names::Names;
use pgentra_session::traffic::Activity;

/// Upper bounds of the histogram in seconds. A cached token takes microseconds, a near server
/// milliseconds, and a metadata service that restarts more than a minute.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// SQLSTATEs that are counted separately; further ones count as `other`, because a server can send
/// any.
const SQLSTATES_LIMIT: usize = 64;

#[derive(Debug)]
pub(super) struct Counts {
    pub(super) connections: Counter,
    pub(super) connections_open: Gauge,
    pub(super) sessions: Counter,
    pub(super) sessions_open: Gauge,
    pub(super) session_start: Histogram,
    pub(super) stages: [(&'static str, Histogram); 5],
    pub(super) failures: [(&'static str, Counter); 8],
    pub(super) ends: [(&'static str, Counter); 5],
    pub(super) cancels: [(&'static str, Counter); 4],
    pub(super) supply: PoolCounters,
    pub(super) history: History,
    /// For each SQLSTATE the count and the last message.
    refusals: Mutex<BTreeMap<String, (u64, String)>>,
    live: Mutex<Live>,
}

/// The pool's counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Server sessions that wait for a client now.
    pub ready: u64,
    /// Clients that got a pooled session.
    pub hits: u64,
    /// Clients for which a session was opened although sessions are pooled.
    pub misses: u64,
    /// Sessions that the refill opened.
    pub warmed: u64,
    /// Failures of the refill.
    pub failed: u64,
    /// Sessions that were cleaned and pooled again.
    pub reused: u64,
}

/// The result of a client's cancel request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cancelled {
    PassedOn,
    /// Another request with the same key was forwarded after it.
    WithAnother,
    /// The key is unknown: the session has ended, or the key is a guess.
    UnknownKey,
    /// The request could not be forwarded.
    Failed,
}

impl Cancelled {
    const ALL: [Self; 4] = [Self::PassedOn, Self::WithAnother, Self::UnknownKey, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::PassedOn => "passed_on",
            Self::WithAnother => "coalesced",
            Self::UnknownKey => "unknown_key",
            Self::Failed => "failed",
        }
    }
}

/// The counters behind [`PoolStats`].
#[derive(Debug, Default)]
pub(crate) struct PoolCounters {
    pub(crate) ready: Gauge,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) warmed: Counter,
    pub(crate) failed: Counter,
    pub(crate) reused: Counter,
}

impl PoolCounters {
    pub(crate) fn get(&self) -> PoolStats {
        PoolStats {
            ready: u64::try_from(self.ready.get()).unwrap_or_default(),
            hits: self.hits.get(),
            misses: self.misses.get(),
            warmed: self.warmed.get(),
            failed: self.failed.get(),
            reused: self.reused.get(),
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        let stage = |name| (name, Histogram::new(SECONDS));
        let count = |name| (name, Counter::default());
        Self {
            connections: Counter::default(),
            connections_open: Gauge::default(),
            sessions: Counter::default(),
            sessions_open: Gauge::default(),
            session_start: Histogram::new(SECONDS),
            stages: ["token", "dns", "dial", "tls", "sign_in"].map(stage),
            failures: ["token", "dns", "dial", "timeout", "tls", "refused", "protocol", "other"].map(count),
            supply: PoolCounters::default(),
            history: History::default(),
            ends: Ended::ALL.map(|ended| count(ended.as_str())),
            cancels: Cancelled::ALL.map(|cancelled| count(cancelled.as_str())),
            refusals: Mutex::default(),
            live: Mutex::default(),
        }
    }
}

impl Counts {
    pub(super) fn opened(&self, timings: Timings) {
        let Timings { token, dns, dial, tls, sign_in, .. } = timings;
        for ((_, histogram), took) in self.stages.iter().zip([token, dns, dial, tls, sign_in]) {
            histogram.observe(took.as_secs_f64());
        }
    }

    pub(super) fn failed(&self, kind: ConnectErrorKind) {
        let reason = match kind {
            ConnectErrorKind::Token => "token",
            ConnectErrorKind::Dns => "dns",
            ConnectErrorKind::Tcp => "dial",
            ConnectErrorKind::Timeout => "timeout",
            ConnectErrorKind::Tls(_) => "tls",
            ConnectErrorKind::Refused(_) => "refused",
            ConnectErrorKind::Protocol => "protocol",
            _ => "other",
        };
        count(&self.failures, reason);
    }

    pub(super) fn cancelled(&self, how: Cancelled) {
        count(&self.cancels, how.as_str());
    }

    pub(super) fn refused(&self, sqlstate: &str, message: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let known = refusals.contains_key(sqlstate) || refusals.len() < SQLSTATES_LIMIT;
        let entry = refusals.entry(if known { sqlstate } else { "other" }.to_owned()).or_default();
        *entry = (entry.0 + 1, message.to_owned());
    }

    pub(super) fn refusals(&self) -> BTreeMap<String, u64> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.iter().map(|(sqlstate, (count, _))| (sqlstate.clone(), *count)).collect()
    }

    /// The last message for each SQLSTATE with which clients were refused.
    pub(super) fn refusal_messages(&self) -> BTreeMap<String, String> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.iter().map(|(sqlstate, (_, message))| (sqlstate.clone(), message.clone())).collect()
    }

    /// Records that a session begins, and how long the client waited for it. Its number is for
    /// [`Counts::ended`].
    pub(super) fn began(
        &self,
        waited: Duration,
        client: String,
        names: Names,
        backend_pid: Option<u32>,
    ) -> (u64, Arc<LiveSession>) {
        self.sessions.inc();
        self.sessions_open.inc();
        self.session_start.observe(waited.as_secs_f64());
        self.live().begin(client, names, backend_pid)
    }

    pub(super) fn ended(&self, number: u64, how: Ended) {
        self.sessions_open.dec();
        count(&self.ends, how.as_str());
        self.live().end(number);
    }

    /// Bytes to the server and to the client, of all open and ended sessions.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.live().bytes()
    }

    /// Open sessions: see [`Live::first`].
    pub(super) fn first(&self, limit: usize) -> Vec<(Activity, Arc<LiveSession>)> {
        self.live().first(limit)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counters: &[(&str, Counter)], name: &str) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == name) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_make_up_codes_without_end() {
        let counts = Counts::default();
        for code in 0..1000 {
            counts.refused(&format!("{code:05}"), "m");
        }
        counts.refused("00000", "last");
        let refusals = counts.refusals();
        assert_eq!(refusals.len(), SQLSTATES_LIMIT + 1);
        assert_eq!(counts.refusal_messages()["00000"], "last");
        assert_eq!((refusals["00000"], refusals["other"]), (2, 1000 - SQLSTATES_LIMIT as u64));
    }

    #[test]
    fn every_way_to_fail_has_its_counter() {
        let counts = Counts::default();
        for kind in [
            ConnectErrorKind::Config,
            ConnectErrorKind::Token,
            ConnectErrorKind::Dns,
            ConnectErrorKind::Tcp,
            ConnectErrorKind::Timeout,
            ConnectErrorKind::Tls(pgentra_connect::TlsFailure::Name),
            ConnectErrorKind::Refused(pgentra_connect::Refusal::Other),
            ConnectErrorKind::Protocol,
        ] {
            counts.failed(kind);
        }
        assert!(counts.failures.iter().all(|(_, counter)| counter.get() == 1), "{counts:?}");
    }
}
