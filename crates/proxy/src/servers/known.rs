//! What is known of the servers of a target, and what follows for sessions with them.

use pgentra_connect::{ServerState, SessionAttrs};
use tokio_util::sync::CancellationToken;

/// What the last question to a server, or the last sign-in at it, has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ServerRole {
    /// It was not asked yet, or it answers and does not tell what it is.
    #[default]
    Unknown,
    /// It told what it is.
    Is(ServerState),
    /// It cannot be reached, or accepts no sessions now.
    Unreachable,
}

impl ServerRole {
    /// In a word or two, for telemetry.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Is(ServerState { is_standby: true, .. }) => "standby",
            Self::Is(ServerState { only_reads: true, .. }) => "read-only primary",
            Self::Is(_) => "primary",
        }
    }
}

/// The clients that want servers of one kind.
#[derive(Debug)]
struct View {
    wanted: SessionAttrs,
    /// For each server the token of the sessions with it. Cancelled and replaced when the server
    /// becomes a wrong one.
    sessions: Vec<CancellationToken>,
}

/// The servers in the order of [`Target::endpoints`](pgentra_connect::Target::endpoints).
#[derive(Debug)]
pub(crate) struct KnownServers {
    roles: Vec<ServerRole>,
    views: Vec<View>,
}

/// How well a server suits: the less, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Right,
    Unknown,
    Wrong,
    Unreachable,
}

impl KnownServers {
    /// So many servers, of which nothing is known, for clients that want these kinds.
    pub(crate) fn new(number: usize, wanted: &[SessionAttrs]) -> Self {
        let sessions = || (0..number).map(|_| CancellationToken::new()).collect();
        let views = wanted.iter().map(|wanted| View { wanted: *wanted, sessions: sessions() });
        Self { roles: vec![ServerRole::Unknown; number], views: views.collect() }
    }

    pub(crate) fn roles(&self) -> &[ServerRole] {
        &self.roles
    }

    /// Nothing is known any more: the servers are not asked.
    pub(crate) fn forget(&mut self) {
        self.roles.fill(ServerRole::Unknown);
    }

    /// Stores what a server is. Cancels the tokens of sessions for which it has become a wrong one. Returns what was
    /// known before.
    pub(crate) fn learn(&mut self, server: usize, role: ServerRole) -> ServerRole {
        let wrong = |known: &Self, view: &View| -> Vec<bool> {
            (0..known.roles.len()).map(|server| known.is_wrong(view.wanted, server)).collect()
        };
        let before: Vec<_> = self.views.iter().map(|view| wrong(self, view)).collect();
        let Some(known) = self.roles.get_mut(server) else { return role };
        let last = std::mem::replace(known, role);
        let after: Vec<_> = self.views.iter().map(|view| wrong(self, view)).collect();
        for ((view, before), after) in self.views.iter_mut().zip(before).zip(after) {
            for ((token, was_wrong), is_wrong) in view.sessions.iter_mut().zip(before).zip(after) {
                if is_wrong && !was_wrong {
                    std::mem::take(token).cancel();
                }
            }
        }
        last
    }

    /// Puts the servers for a new session into their order: those that suit first. With `prefer-standby` and no standby,
    /// a server that cannot be reached is not tried while there is another, because all are tried then.
    pub(crate) fn arrange(&self, view: usize, order: &mut Vec<usize>) {
        let Some(View { wanted, .. }) = self.views.get(view) else { return };
        order.sort_by_key(|server| self.rank(*wanted, *server));
        if order.first().is_some_and(|first| self.rank(*wanted, *first) != Rank::Unreachable)
            && *wanted == SessionAttrs::PreferStandby
        {
            order.retain(|server| self.rank(*wanted, *server) != Rank::Unreachable);
        }
    }

    /// Whether new sessions for these clients go to this server, as far as is known.
    pub(crate) fn is_selected(&self, view: usize, server: usize) -> bool {
        let Some(View { wanted, .. }) = self.views.get(view) else { return false };
        let best = (0..self.roles.len()).map(|other| self.rank(*wanted, other)).min();
        match self.rank(*wanted, server) {
            Rank::Right => true,
            Rank::Wrong => *wanted == SessionAttrs::PreferStandby && best == Some(Rank::Wrong),
            Rank::Unknown | Rank::Unreachable => false,
        }
    }

    /// The token of new sessions with this server.
    pub(crate) fn session(&self, view: usize, server: usize) -> Option<CancellationToken> {
        self.views.get(view)?.sessions.get(server).cloned()
    }

    /// Whether sessions with this server are with a wrong one. A server that cannot be reached or does not tell is none:
    /// its sessions may go on. With `prefer-standby` a primary is wrong while there is a standby.
    fn is_wrong(&self, wanted: SessionAttrs, server: usize) -> bool {
        let fits = |role: &ServerRole| matches!(role, ServerRole::Is(state) if wanted.fits(*state));
        match self.roles[server] {
            ServerRole::Is(state) if !wanted.fits(state) => {
                wanted != SessionAttrs::PreferStandby || self.roles.iter().any(fits)
            }
            _ => false,
        }
    }

    fn rank(&self, wanted: SessionAttrs, server: usize) -> Rank {
        match self.roles[server] {
            ServerRole::Is(state) if wanted.fits(state) => Rank::Right,
            // Each server that accepts a session suits, the first one best.
            ServerRole::Unknown if wanted == SessionAttrs::Any => Rank::Right,
            ServerRole::Unknown => Rank::Unknown,
            ServerRole::Is(_) => Rank::Wrong,
            ServerRole::Unreachable => Rank::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: ServerRole = ServerRole::Is(ServerState { is_standby: false, only_reads: false });
    const STANDBY: ServerRole = ServerRole::Is(ServerState { is_standby: true, only_reads: true });

    fn known(roles: &[ServerRole], wanted: SessionAttrs) -> KnownServers {
        let mut known = KnownServers::new(roles.len(), &[wanted]);
        for (server, role) in roles.iter().enumerate() {
            known.learn(server, *role);
        }
        known
    }

    #[test]
    fn new_sessions_go_to_the_servers_that_suit() {
        use ServerRole::{Unknown, Unreachable};
        use SessionAttrs::{Any, PreferStandby, Primary, Standby};
        for (wanted, roles, order) in [
            (Primary, [Unknown, Unknown, Unknown], &[0, 1, 2][..]),
            (Primary, [STANDBY, PRIMARY, Unknown], &[1, 2, 0]),
            (Primary, [Unreachable, STANDBY, Unknown], &[2, 1, 0]),
            (Primary, [Unreachable, Unreachable, Unreachable], &[0, 1, 2]),
            (Standby, [PRIMARY, STANDBY, STANDBY], &[1, 2, 0]),
            (Any, [Unknown, STANDBY, PRIMARY], &[0, 1, 2]),
            (Any, [Unreachable, STANDBY, PRIMARY], &[1, 2, 0]),
            (PreferStandby, [PRIMARY, Unreachable, STANDBY], &[2, 0]),
            (PreferStandby, [PRIMARY, Unreachable, Unreachable], &[0]),
            (PreferStandby, [Unreachable, Unreachable, Unreachable], &[0, 1, 2]),
        ] {
            let known = known(&roles, wanted);
            let mut arranged = vec![0, 1, 2];
            known.arrange(0, &mut arranged);
            assert_eq!(arranged, order, "{wanted}: {roles:?}");
        }
        for (wanted, roles, selected) in [
            (Primary, [Unknown, STANDBY, PRIMARY], [false, false, true]),
            (Primary, [Unreachable, STANDBY, Unknown], [false; 3]),
            (Standby, [PRIMARY, STANDBY, STANDBY], [false, true, true]),
            (PreferStandby, [PRIMARY, Unreachable, STANDBY], [false, false, true]),
            (PreferStandby, [PRIMARY, Unreachable, Unreachable], [true, false, false]),
        ] {
            let known = known(&roles, wanted);
            assert_eq!([0, 1, 2].map(|server| known.is_selected(0, server)), selected, "{wanted}: {roles:?}");
        }
        // A random order stays one among servers that suit alike.
        let mut random = vec![2, 1, 0];
        known(&[PRIMARY, STANDBY, STANDBY], Standby).arrange(0, &mut random);
        assert_eq!(random, [2, 1, 0]);
    }

    #[test]
    fn sessions_with_a_server_that_becomes_a_wrong_one_are_told() {
        let mut known = known(&[PRIMARY, STANDBY], SessionAttrs::Primary);
        let session = known.session(0, 0).unwrap();
        for harmless in [ServerRole::Unreachable, ServerRole::Unknown, PRIMARY] {
            known.learn(0, harmless);
            assert!(!session.is_cancelled(), "{harmless:?}");
        }
        assert_eq!(known.learn(0, STANDBY), PRIMARY);
        assert!(session.is_cancelled());
        let later = known.session(0, 0).unwrap();
        known.learn(0, STANDBY);
        assert!(!later.is_cancelled(), "the server was wrong already when the session began");
    }

    #[test]
    fn a_primary_is_wrong_for_readers_while_there_is_a_standby() {
        let mut known = known(&[PRIMARY, ServerRole::Unreachable], SessionAttrs::PreferStandby);
        let (reader, other) = (known.session(0, 0).unwrap(), known.session(0, 1).unwrap());
        known.learn(1, PRIMARY);
        assert!(!reader.is_cancelled() && !other.is_cancelled());
        known.learn(1, STANDBY);
        assert!(reader.is_cancelled() && !other.is_cancelled());
        let any = SessionAttrs::Any;
        let mut known = KnownServers::new(1, &[any]);
        let session = known.session(0, 0).unwrap();
        known.learn(0, PRIMARY);
        known.learn(0, STANDBY);
        assert!(!session.is_cancelled());
    }
}
