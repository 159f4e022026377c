//! Who is to blame for a failure.

/// Who is to blame, as the exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A fault of ours, or of this machine.
    Ours = 1,
    /// Usage or configuration.
    Usage = 2,
    /// No token could be had.
    Token = 3,
    /// Network or TLS.
    Network = 4,
    /// The server refused.
    Server = 5,
    /// A check of `pgentra doctor` failed.
    Check = 6,
}
