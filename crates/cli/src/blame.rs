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

impl Blame {
    /// The exit code of a plan that has changes, where the user asks for it: 2, which usage errors have otherwise.
    pub(crate) const DIFFERENCE: Self = Self::Usage;

    /// The blame that an exit code says; a fault of ours for every other code.
    pub(crate) fn of_exit_code(code: u8) -> Self {
        [Self::Usage, Self::Token, Self::Network, Self::Server, Self::Check]
            .into_iter()
            .find(|blame| *blame as u8 == code)
            .unwrap_or(Self::Ours)
    }
}
