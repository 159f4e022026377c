//! Why a resource is not ready: a reason for programs, a message for people.

use std::error::Error;

use pgentra_connect::{ConnectError, ConnectErrorKind, quote};
use pgentra_roles::RolesError;

use crate::claims::Conflict;
use crate::schedule::LookEnd;
use crate::servers::ServerError;

/// The longest message, in bytes: that of an event has at most 1 KiB, and a status is for people.
const LONGEST: usize = 1000;

/// Why a resource is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookFailure {
    /// One word, as conditions and events have it.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) ended: LookEnd,
}

impl LookFailure {
    /// A fault that stays until the resource, or what it is about, is changed.
    pub(crate) fn settled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: bounded(message.into()), ended: LookEnd::Settled }
    }

    fn may_pass(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: bounded(message.into()), ended: LookEnd::MayPass }
    }

    /// The server's name or the document is wrong; each fault is told.
    pub(crate) fn invalid(faults: &[String]) -> Self {
        let message = match faults {
            [only] => only.clone(),
            several => several.iter().fold(format!("{} things are wrong", several.len()), |text, fault| {
                format!("{text}\n{fault}")
            }),
        };
        Self::settled("Invalid", message)
    }

    /// A connection string that is not used.
    pub(crate) fn server(error: &ServerError) -> Self {
        Self::invalid(&[told(error)])
    }

    /// Roles that other resources have.
    pub(crate) fn conflicts(conflicts: &[Conflict]) -> Self {
        let lines: Vec<String> = conflicts
            .iter()
            .map(|conflict| match &conflict.as_role {
                None => {
                    format!(
                        "role {} belongs to PostgresRoles {}",
                        quote::name(&conflict.role),
                        conflict.owner
                    )
                }
                Some(other) => format!(
                    "role {} is for the principal of role {}, which belongs to PostgresRoles {}",
                    quote::name(&conflict.role),
                    quote::name(other),
                    conflict.owner
                ),
            })
            .collect();
        Self::may_pass("RoleOwnedElsewhere", format!("{}; nothing was changed", lines.join("; ")))
    }

    /// A plan that would change roles of other resources.
    pub(crate) fn touches(role: &str, owner: &str) -> Self {
        let message = format!(
            "the plan changes role {}, which belongs to PostgresRoles {owner}; nothing was changed",
            quote::name(role)
        );
        Self::may_pass("RoleOwnedElsewhere", message)
    }

    /// The API server did not take the status, so the server was not changed.
    pub(crate) fn unwritten(error: &kube::Error) -> Self {
        Self::may_pass("StatusNotWritten", format!("the status cannot be written: {}", chain(error)))
    }

    /// Both failures, with the reason of this one.
    pub(crate) fn and(self, other: &Self) -> Self {
        Self { message: bounded(format!("{}; {}", self.message, other.message)), ..self }
    }

    /// The server did not do its part within this time.
    pub(crate) fn too_slow(seconds: u64) -> Self {
        Self::may_pass("TimedOut", format!("the server took more than {seconds} seconds"))
    }

    /// Why roles could not be read, planned or changed.
    pub(crate) fn of(error: &RolesError) -> Self {
        let mut message = chain(error);
        let hint = match error {
            RolesError::InTheWay { .. } => {
                Some("give the objects to another role, or set deletion to keep".to_owned())
            }
            error => error.hint(),
        };
        if let Some(hint) = hint {
            message.push_str(&format!("; hint: {hint}"));
        }
        match error {
            RolesError::Faults(_) => Self::settled("DoesNotFit", message),
            RolesError::Connect { source, .. } => Self { message: bounded(message), ..Self::connect(source) },
            RolesError::Broken { .. } => Self::may_pass("ServerUnreachable", message),
            RolesError::NotEntra | RolesError::TooOld(_) => Self::may_pass("NotSupported", message),
            RolesError::NotAdministrator(_) => Self::may_pass("NotAdministrator", message),
            RolesError::InTheWay { .. } => Self::may_pass("RoleInUse", message),
            RolesError::NotDropped { .. } => Self::may_pass("RoleNotDropped", message),
            RolesError::Unsettled { .. } => Self::may_pass("NotGranted", message),
            RolesError::NotKept { .. } => Self::may_pass("StatusNotWritten", message),
            RolesError::HalfApplied { .. } => Self::may_pass("HalfApplied", message),
            _ => Self::may_pass("Refused", message),
        }
    }

    /// Why there is no session.
    pub(crate) fn connect(error: &ConnectError) -> Self {
        let mut message = chain(error);
        if let Some(hint) = error.hint() {
            message.push_str(&format!("; hint: {hint}"));
        }
        match error.kind() {
            ConnectErrorKind::Config => Self::settled("Invalid", message),
            ConnectErrorKind::Token => Self::may_pass("NoToken", message),
            ConnectErrorKind::Tls(_) => Self::may_pass("ServerNotVerified", message),
            ConnectErrorKind::Refused(_) => Self::may_pass("SignInRefused", message),
            _ => Self::may_pass("ServerUnreachable", message),
        }
    }
}

/// What is wrong with the connection string of a resource.
pub(crate) fn told(error: &ServerError) -> String {
    let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    format!("spec.server: {error}{hint}")
}

/// The error and its causes, each told once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(&format!(": {told}"));
        }
        cause = error.source();
    }
    text
}

/// At most [`LONGEST`] bytes.
pub(crate) fn bounded(mut message: String) -> String {
    if message.len() > LONGEST {
        let end = (0..=LONGEST - '…'.len_utf8()).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_faults_are_all_told() {
        let failure = LookFailure::invalid(&["one".to_owned(), "two".to_owned()]);
        assert_eq!((failure.reason, &*failure.message), ("Invalid", "2 things are wrong\none\ntwo"));
        assert_eq!(LookFailure::invalid(&["one".to_owned()]).message, "one");
    }

    #[test]
    fn a_message_has_a_length_that_an_event_can_hold() {
        let long = bounded("ä".repeat(2000));
        assert!(long.len() <= LONGEST && long.ends_with('…'), "{}", long.len());
        assert_eq!(bounded("short".to_owned()), "short");
    }
}
