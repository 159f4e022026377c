//! The open sessions of a target.

use std::collections::HashMap;
use std::sync::Arc;

use pgentra_session::traffic::{Activity, Traffic};
use tokio::time::Instant;

use super::names::Names;

/// An open session. Idle sessions are many, so it is one allocation, and its names are shared.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) traffic: Traffic,
    pub(super) names: Arc<Names>,
    /// The address or user id of the client.
    pub(super) client: Box<str>,
    pub(super) began: Instant,
    pub(super) backend_pid: Option<u32>,
}

/// Open sessions, and the byte counts of ended ones.
#[derive(Debug, Default)]
pub(super) struct Live {
    sessions: HashMap<u64, Arc<LiveSession>>,
    /// The names of the open sessions, each with their number: clients of one program name the
    /// same.
    names: HashMap<Arc<Names>, usize>,
    next: u64,
    to_server: u64,
    to_client: u64,
}

impl Live {
    /// Adds a session that begins now. Its number is for [`Live::end`].
    pub(super) fn begin(
        &mut self,
        client: String,
        names: Names,
        backend_pid: Option<u32>,
    ) -> (u64, Arc<LiveSession>) {
        let names =
            self.names.get_key_value(&names).map_or_else(|| Arc::new(names), |(names, _)| Arc::clone(names));
        *self.names.entry(Arc::clone(&names)).or_default() += 1;
        let session = Arc::new(LiveSession {
            traffic: Traffic::default(),
            names,
            client: client.into_boxed_str(),
            began: Instant::now(),
            backend_pid,
        });
        self.next += 1;
        self.sessions.insert(self.next, Arc::clone(&session));
        (self.next, session)
    }

    pub(super) fn end(&mut self, number: u64) {
        let Some(session) = self.sessions.remove(&number) else { return };
        self.to_server += session.traffic.to_server();
        self.to_client += session.traffic.to_client();
        if let Some(users) = self.names.get_mut(&session.names) {
            *users -= 1;
            if *users == 0 {
                self.names.remove(&session.names);
            }
        }
    }

    /// Bytes to the server and to the client, of all open and ended sessions.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let add = |(up, down): (u64, u64), session: &Arc<LiveSession>| {
            (up + session.traffic.to_server(), down + session.traffic.to_client())
        };
        self.sessions.values().fold((self.to_server, self.to_client), add)
    }

    /// At most `limit` sessions: the busy ones first, then those in a transaction, then the idle
    /// ones; the oldest first of each.
    pub(super) fn first(&self, limit: usize) -> Vec<(Activity, Arc<LiveSession>)> {
        let of = |(number, session): (&u64, &Arc<LiveSession>)| (session.traffic.activity(), *number);
        let mut order: Vec<_> = self.sessions.iter().map(of).collect();
        if order.len() > limit {
            order.select_nth_unstable(limit);
            order.truncate(limit);
        }
        order.sort_unstable();
        let session = |(activity, number)| Some((activity, Arc::clone(self.sessions.get(&number)?)));
        order.into_iter().filter_map(session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(role: &str) -> Names {
        Names { role: Some(role.to_owned()), ..Names::default() }
    }

    #[test]
    fn sessions_of_one_program_share_their_names() {
        let mut live = Live::default();
        let (first, a) = live.begin("a".to_owned(), names("app"), None);
        let (second, b) = live.begin("b".to_owned(), names("app"), None);
        let (third, c) = live.begin("c".to_owned(), names("other"), None);
        assert!(Arc::ptr_eq(&a.names, &b.names) && !Arc::ptr_eq(&a.names, &c.names));
        assert_eq!(live.names.len(), 2);
        live.end(first);
        live.end(third);
        live.end(third);
        assert_eq!((live.names.len(), live.names[&names("app")]), (1, 1));
        live.end(second);
        assert!(live.names.is_empty() && live.sessions.is_empty());
    }

    #[test]
    fn some_are_shown_and_the_oldest_first() {
        let mut live = Live::default();
        for number in 0..5 {
            live.begin(number.to_string(), names("app"), Some(number));
        }
        let pids = |limit| -> Vec<_> {
            live.first(limit).into_iter().filter_map(|(_, session)| session.backend_pid).collect()
        };
        assert_eq!(pids(9), [0, 1, 2, 3, 4]);
        assert_eq!(pids(2), [0, 1]);
        assert!(pids(0).is_empty());
    }

    /// The page must cost little with thousands of idle sessions.
    #[test]
    fn a_session_is_small() {
        let size = size_of::<LiveSession>();
        assert!(size <= 88, "{size} bytes");
    }
}
