//! What was asked and how it ended, without anything secret.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::endpoint::Endpoint;

/// How many requests are remembered; the oldest are forgotten first. A day of one request a minute, seven times over.
const REMEMBERED: usize = 10_000;

/// How much of a path, a query key or a header name is remembered, in bytes: a peer chooses them.
const NAME_LIMIT: usize = 200;

/// How many query keys and how many header names of one request are remembered.
const NAMES_LIMIT: usize = 64;

/// Whether a request got a complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseOutcome {
    /// An answer with this status was handed to the connection.
    Answered(u16),
    /// The connection was cut off within an answer with this status.
    Cut(u16),
    /// There was never an answer.
    Hung,
}

/// One request: names only. Values of parameters and headers, and bodies, are never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// When it was answered, by the clock of the local cloud.
    pub at: SystemTime,
    /// The endpoint that answered; `None` if there is nothing at that path.
    pub endpoint: Option<Endpoint>,
    /// HTTP method, such as `GET`.
    pub method: String,
    /// Path without the query, cut off at 200 bytes.
    pub path: String,
    /// Names of the query parameters, in order.
    pub query_keys: Vec<String>,
    /// Names of the headers, in lower case, in order.
    pub header_names: Vec<String>,
    /// Whether the request got a complete response.
    pub outcome: ResponseOutcome,
}

/// The requests of the past, oldest first. At most 10,000 are remembered.
#[derive(Debug, Default)]
pub struct Journal(Mutex<VecDeque<JournalEntry>>);

impl Journal {
    /// A copy of all remembered requests.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.entries_mut().iter().cloned().collect()
    }

    /// How many remembered requests `endpoint` has answered.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.entries_mut().iter().filter(|entry| entry.endpoint == Some(endpoint)).count()
    }

    /// Removes all requests.
    pub fn clear(&self) {
        self.entries_mut().clear();
    }

    pub(crate) fn write(&self, mut entry: JournalEntry) {
        for name in [&mut entry.method, &mut entry.path] {
            shorten(name);
        }
        for names in [&mut entry.query_keys, &mut entry.header_names] {
            names.truncate(NAMES_LIMIT);
            names.iter_mut().for_each(shorten);
        }
        let mut entries = self.entries_mut();
        if entries.len() >= REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn entries_mut(&self) -> std::sync::MutexGuard<'_, VecDeque<JournalEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts off a text that a peer chose.
pub(crate) fn shorten(name: &mut String) {
    if name.len() > NAME_LIMIT {
        let end = (0..=NAME_LIMIT).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
        name.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> JournalEntry {
        JournalEntry {
            at: SystemTime::UNIX_EPOCH,
            endpoint: Some(Endpoint::ImdsToken),
            method: "GET".to_owned(),
            path: path.to_owned(),
            query_keys: vec!["k".repeat(1000); 1000],
            header_names: Vec::new(),
            outcome: ResponseOutcome::Answered(200),
        }
    }

    #[test]
    fn a_long_request_is_remembered_in_short() {
        let journal = Journal::default();
        journal.write(entry(&"ä".repeat(200)));
        let entries = journal.entries();
        assert_eq!(entries[0].path.len(), NAME_LIMIT);
        assert_eq!(entries[0].query_keys, vec!["k".repeat(NAME_LIMIT); NAMES_LIMIT]);
    }

    #[test]
    fn the_oldest_requests_are_forgotten() {
        let journal = Journal::default();
        for number in 0..=REMEMBERED {
            let mut entry = entry(&number.to_string());
            entry.query_keys.clear();
            journal.write(entry);
        }
        assert_eq!(journal.count(Endpoint::ImdsToken), REMEMBERED);
        assert_eq!(journal.entries()[0].path, "1");
        journal.clear();
        assert_eq!(journal.entries(), []);
    }
}
