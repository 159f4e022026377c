//! The last refused clients, for the status page.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Number of entries; the log has all of them.
const LIMIT: usize = 50;

/// One client that was refused.
#[derive(Clone, Debug)]
pub(super) struct RefusedClient {
    pub(super) time: SystemTime,
    pub(super) target: String,
    pub(super) client: String,
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) role: Option<String>,
    pub(super) database: Option<String>,
    pub(super) application_name: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct RefusedClients(Mutex<VecDeque<RefusedClient>>);

impl RefusedClients {
    pub(super) fn add(&self, problem: RefusedClient) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() == LIMIT {
            problems.pop_front();
        }
        problems.push_back(problem);
    }

    /// The entries, newest first.
    pub(super) fn newest(&self) -> Vec<RefusedClient> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let problems = RefusedClients::default();
        for number in 0..LIMIT + 3 {
            problems.add(RefusedClient {
                time: SystemTime::UNIX_EPOCH,
                target: String::new(),
                client: String::new(),
                sqlstate: String::new(),
                message: number.to_string(),
                detail: None,
                hint: None,
                role: None,
                database: None,
                application_name: None,
            });
        }
        let newest = problems.newest();
        assert_eq!((newest.len(), &*newest[0].message), (LIMIT, &*(LIMIT + 2).to_string()));
        assert_eq!(newest[LIMIT - 1].message, "3");
    }
}
