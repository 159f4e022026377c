//! Which of several servers is the right one (libpq, `target_session_attrs`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

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

/// Whether a server is a standby, and whether its sessions only read by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerState {
    /// The server replays what a primary sends (`pg_is_in_recovery()`).
    pub is_standby: bool,
    /// New transactions of the session only read: it is a standby, or `default_transaction_read_only` is on.
    pub only_reads: bool,
}

impl ServerState {
    /// The state in the parameters that a server reported at the sign-in; `None`: it reports none.
    pub fn reported(parameters: &BTreeMap<String, String>) -> Option<Self> {
        let is_on = |name: &str| parameters.get(name).map(|value| value == "on");
        let is_standby = is_on("in_hot_standby")?;
        // A standby reports `default_transaction_read_only = off`, and still only reads.
        let only_reads = is_standby || is_on("default_transaction_read_only")?;
        Some(Self { is_standby, only_reads })
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.is_standby, self.only_reads) {
            (true, _) => "a standby",
            (false, true) => "a primary that only reads",
            (false, false) => "a primary",
        })
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

    #[test]
    fn a_server_that_reports_its_state_is_not_asked() {
        let reported = |settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            ServerState::reported(&settings.collect())
        };
        let of = |standby, read_only| {
            reported(&[("in_hot_standby", standby), ("default_transaction_read_only", read_only)])
        };
        let state = |is_standby, only_reads| Some(ServerState { is_standby, only_reads });
        assert_eq!(of("off", "off"), state(false, false));
        assert_eq!(of("off", "on"), state(false, true));
        assert_eq!(of("on", "off"), state(true, true));
        assert_eq!(reported(&[("default_transaction_read_only", "off")]), None);
        assert_eq!(reported(&[("in_hot_standby", "off")]), None);
    }
}
