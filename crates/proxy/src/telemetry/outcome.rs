//! The result of the last sign-in at a target's server.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use pgentra_connect::{ConnectErrorKind, Refusal, Target};

/// The last sign-in that shows the state of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignInOutcome {
    pub(super) time: SystemTime,
    /// Why it failed; `None`: it succeeded.
    pub(super) failure: Option<SignInFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignInFailure {
    /// When the first of those in a row failed.
    pub(super) since: SystemTime,
    /// How many failed in a row.
    pub(super) times: u64,
    /// The SQLSTATE that the last client got.
    pub(super) sqlstate: String,
    /// A short description of the cause.
    pub(super) cause: &'static str,
    /// The message that goes with the SQLSTATE, and its detail.
    pub(super) message: String,
}

/// The [`SignInOutcome`] of a target.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<SignInOutcome>>);

impl Last {
    pub(super) fn get(&self) -> Option<SignInOutcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn succeeded(&self, time: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(SignInOutcome { time, failure: None });
    }

    pub(super) fn failed(
        &self,
        time: SystemTime,
        kind: ConnectErrorKind,
        (sqlstate, message): (&str, String),
    ) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.as_ref().and_then(|last| last.failure.as_ref());
        let (since, times) = before.map_or((time, 0), |before| (before.since, before.times));
        let failure = SignInFailure {
            since,
            times: times + 1,
            sqlstate: sqlstate.to_owned(),
            cause: in_words(kind),
            message,
        };
        *last = Some(SignInOutcome { time, failure: Some(failure) });
    }
}

/// Whether a failure is caused by the target, and not by the role or database that a client chose.
pub(super) fn is_the_targets(kind: ConnectErrorKind, target: &Target) -> bool {
    let ConnectErrorKind::Refused(refusal) = kind else { return true };
    match refusal {
        Refusal::DatabaseMissing | Refusal::DatabaseForbidden => target.named_database().is_some(),
        Refusal::RoleNotMapped
        | Refusal::RoleMayNotSignIn
        | Refusal::OidMismatch
        | Refusal::UserTokenForServiceRole
        | Refusal::AppTokenForUserRole
        | Refusal::NotInGroup => target.named_user().is_some(),
        _ => true,
    }
}

/// Describes what failed, for readers who do not know SQLSTATEs.
fn in_words(kind: ConnectErrorKind) -> &'static str {
    match kind {
        ConnectErrorKind::Config => "the target cannot be used as it is written",
        ConnectErrorKind::Token => "no access token",
        ConnectErrorKind::Dns => "the server's name cannot be resolved",
        ConnectErrorKind::Tcp => "no connection to the server",
        ConnectErrorKind::Timeout => "no answer from the server in time",
        ConnectErrorKind::Tls(_) => "no verified TLS",
        ConnectErrorKind::Protocol => "the server broke the sign-in off",
        ConnectErrorKind::Refused(refusal) => refused(refusal),
        _ => "no session with the server",
    }
}

fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Expired => "the server says that the token has expired",
        Refusal::Audience => "the token is not for this server's cloud",
        Refusal::RoleNotMapped => "the role is not mapped to Entra",
        Refusal::OidMismatch => "the role is mapped to another identity",
        Refusal::UserTokenForServiceRole | Refusal::AppTokenForUserRole => {
            "the role is for another kind of identity"
        }
        Refusal::NotInGroup => "the identity is not in the role's group",
        Refusal::RoleMayNotSignIn => "the role may not log in",
        Refusal::NoTls => "the server says that there is no TLS",
        Refusal::Firewall => "the server lets no client of this address in",
        Refusal::DatabaseMissing => "there is no such database",
        Refusal::DatabaseForbidden => "the role may not connect to the database",
        Refusal::TooManyConnections => "the server has no connection left",
        Refusal::NotReady => "the server is starting or stopping",
        _ => "the server refused the sign-in",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgentra_connect::{Layers, TlsFailure};
    use pgentra_system::{Env, Files};

    use super::*;

    fn target(text: &str) -> Target {
        let env = Env::from_map::<String, String>([]);
        let layers = Layers::gather(Some(text), &[], &env, &Files::in_memory()).unwrap();
        Target::resolve_server(&layers).unwrap()
    }

    #[test]
    fn failures_in_a_row_have_one_beginning() {
        let last = Last::default();
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let failed = |second, kind| last.failed(at(second), kind, ("08001", "m".to_owned()));
        assert_eq!(last.get(), None);
        failed(1, ConnectErrorKind::Dns);
        failed(2, ConnectErrorKind::Tcp);
        let failure = last.get().unwrap().failure.unwrap();
        assert_eq!((failure.since, failure.times, failure.cause), (at(1), 2, "no connection to the server"));
        last.succeeded(at(3));
        assert_eq!(last.get(), Some(SignInOutcome { time: at(3), failure: None }));
        failed(4, ConnectErrorKind::Token);
        let failure = last.get().unwrap().failure.unwrap();
        assert_eq!((failure.since, failure.times), (at(4), 1));
    }

    /// A client that names an unknown role or database does not make the target fail.
    #[test]
    fn what_a_client_chose_is_not_the_targets_fault() {
        let open = target("host=h");
        let named = target("host=h user=u dbname=d");
        for (refusal, of_open) in [
            (Refusal::RoleNotMapped, false),
            (Refusal::OidMismatch, false),
            (Refusal::RoleMayNotSignIn, false),
            (Refusal::DatabaseMissing, false),
            (Refusal::Expired, true),
            (Refusal::TooManyConnections, true),
            (Refusal::Firewall, true),
        ] {
            let kind = ConnectErrorKind::Refused(refusal);
            assert_eq!(
                (is_the_targets(kind, &open), is_the_targets(kind, &named)),
                (of_open, true),
                "{refusal:?}"
            );
        }
        assert!(is_the_targets(ConnectErrorKind::Tls(TlsFailure::Name), &open));
    }

    #[test]
    fn every_failure_has_words() {
        for kind in ConnectErrorKind::all() {
            assert!(in_words(kind).len() > 10, "{kind:?}");
        }
    }
}
