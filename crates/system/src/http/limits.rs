/// hyper's own default is 100; metadata services send about ten, Entra about twenty.
pub(super) const MAX_HEADERS: usize = 64;

/// The most bytes that the status line and the headers may take.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
