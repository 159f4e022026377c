//! Whether a pooled session can still be used.

/// A value that can be pooled.
pub(crate) trait Idle {
    /// Whether the session is still usable. Any bytes that the server sent meanwhile make it
    /// unusable.
    fn check(&mut self) -> Result<(), Unhealthy>;
}

/// Why a session is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unhealthy {
    /// The server ended it because it was idle (57P05).
    IdleTimeout,
    /// The server ended it for another reason, or sent something.
    Disturbed,
    /// It is older than its lifetime, or its server has become a wrong one.
    Outlived,
}
