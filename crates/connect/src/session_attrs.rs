//! Which of several servers is the right one (libpq, `target_session_attrs`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Which of several servers is taken. The names are libpq's.
///
/// A server says in its greeting whether it is a standby and whether its sessions only read; PostgreSQL does so since version 14.
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
    /// The first that is a standby; any, where none is.
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

    /// The requirement of each pass over all servers.
    pub(crate) fn passes(self) -> &'static [SessionAttrs] {
        match self {
            SessionAttrs::Any => &[SessionAttrs::Any],
            SessionAttrs::ReadWrite => &[SessionAttrs::ReadWrite],
            SessionAttrs::ReadOnly => &[SessionAttrs::ReadOnly],
            SessionAttrs::Primary => &[SessionAttrs::Primary],
            SessionAttrs::Standby => &[SessionAttrs::Standby],
            SessionAttrs::PreferStandby => &[SessionAttrs::Standby, SessionAttrs::Any],
        }
    }

    /// Whether a server with these settings fits. `None`: it did not report the settings that decide it.
    pub(crate) fn fits(self, parameters: &BTreeMap<String, String>) -> Option<bool> {
        let is_on = |name: &str| parameters.get(name).map(|value| value == "on");
        let is_standby = || is_on("in_hot_standby");
        // A standby reports `default_transaction_read_only = off`, and still only reads.
        let only_reads = || Some(is_standby()? || is_on("default_transaction_read_only")?);
        match self {
            // `prefer-standby` never asks itself: its passes ask for `standby` and `any`.
            SessionAttrs::Any | SessionAttrs::PreferStandby => Some(true),
            SessionAttrs::ReadWrite => Some(!only_reads()?),
            SessionAttrs::ReadOnly => only_reads(),
            SessionAttrs::Primary => Some(!is_standby()?),
            SessionAttrs::Standby => is_standby(),
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
        let server = |standby: &str, read_only: &str| {
            let settings = [("in_hot_standby", standby), ("default_transaction_read_only", read_only)];
            settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        };
        let (primary, frozen, standby) = (server("off", "off"), server("off", "on"), server("on", "off"));
        for (attrs, expected) in [
            (SessionAttrs::Any, [true, true, true]),
            (SessionAttrs::ReadWrite, [true, false, false]),
            (SessionAttrs::ReadOnly, [false, true, true]),
            (SessionAttrs::Primary, [true, true, false]),
            (SessionAttrs::Standby, [false, false, true]),
        ] {
            let found = [&primary, &frozen, &standby].map(|server| attrs.fits(server).unwrap());
            assert_eq!(found, expected, "{attrs}");
            assert_eq!(attrs.as_str().parse(), Ok(attrs));
        }
        assert_eq!(SessionAttrs::Primary.fits(&BTreeMap::new()), None);
        assert_eq!(SessionAttrs::Any.fits(&BTreeMap::new()), Some(true));
        assert!("Primary".parse::<SessionAttrs>().is_err());
    }
}
