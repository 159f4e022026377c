/// The requests that a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All requests, on a loopback address only.
    Admin,
    /// Probes and metrics, on any address.
    Health,
}
