//! The kinds of listeners of a target.

use std::fmt;

/// For which clients of a target a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// All: `listen`.
    Main,
    /// Those that prefer a standby: `listen_read`.
    Read,
    /// Those whose sessions are not pooled: `listen_direct`.
    Direct,
}

impl ListenerKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Main, Self::Read, Self::Direct];

    /// The setting with the addresses.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Main => "listen",
            Self::Read => "listen_read",
            Self::Direct => "listen_direct",
        }
    }
}

/// What a line about a listener says behind the target's name.
impl fmt::Display for ListenerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "",
            Self::Read => " (read)",
            Self::Direct => " (direct)",
        })
    }
}
