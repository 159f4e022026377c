//! Which of several servers is the right one (libpq, `target_session_attrs`).

use std::fmt;
use std::str::FromStr;

use crate::server_state::ServerState;

/// Which of several servers is taken. The names are libpq's.
///
/// A server reports at the sign-in whether it is a standby and whether its sessions only read. PostgreSQL does so since
/// version 14; an older one is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionAttrs {
    /// The first host that accepts a session; the default.
    #[default]
    Any,
    /// The first whose sessions may write by default.
    ReadWrite,
    /// The first whose sessions only read by default.
    ReadOnly,
    /// The first that is no standby.
    Primary,
    /// The first that is a standby.
    Standby,
    /// The first that is a standby; the first that accepts a session, where none is.
    PreferStandby,
}

impl SessionAttrs {
    const ALL: [SessionAttrs; 6] = [
        SessionAttrs::Any,
        SessionAttrs::ReadWrite,
        SessionAttrs::ReadOnly,
        SessionAttrs::Primary,
        SessionAttrs::Standby,
        SessionAttrs::PreferStandby,
    ];

    /// The value as libpq's `target_session_attrs` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionAttrs::Any => "any",
            SessionAttrs::ReadWrite => "read-write",
            SessionAttrs::ReadOnly => "read-only",
            SessionAttrs::Primary => "primary",
            SessionAttrs::Standby => "standby",
            SessionAttrs::PreferStandby => "prefer-standby",
        }
    }

    /// Whether a server in this state is the one to take. With [`SessionAttrs::PreferStandby`]: whether it is preferred.
    pub fn fits(self, state: ServerState) -> bool {
        match self {
            SessionAttrs::Any => true,
            SessionAttrs::ReadWrite => !state.only_reads,
            SessionAttrs::ReadOnly => state.only_reads,
            SessionAttrs::Primary => !state.is_standby,
            SessionAttrs::Standby | SessionAttrs::PreferStandby => state.is_standby,
        }
    }
}

impl FromStr for SessionAttrs {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|attrs| attrs.as_str() == text).ok_or(())
    }
}

impl fmt::Display for SessionAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_fits_as_libpq_has_it() {
        let primary = ServerState { is_standby: false, only_reads: false };
        let frozen = ServerState { is_standby: false, only_reads: true };
        let standby = ServerState { is_standby: true, only_reads: true };
        for (attrs, expected) in [
            (SessionAttrs::Any, [true, true, true]),
            (SessionAttrs::ReadWrite, [true, false, false]),
            (SessionAttrs::ReadOnly, [false, true, true]),
            (SessionAttrs::Primary, [true, true, false]),
            (SessionAttrs::Standby, [false, false, true]),
            (SessionAttrs::PreferStandby, [false, false, true]),
        ] {
            assert_eq!([primary, frozen, standby].map(|server| attrs.fits(server)), expected, "{attrs}");
            assert_eq!(attrs.as_str().parse(), Ok(attrs));
        }
        assert!("Primary".parse::<SessionAttrs>().is_err());
    }
}
