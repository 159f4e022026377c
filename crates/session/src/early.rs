//! Bytes that a client sends before it is asked for them.

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;
use zeroize::Zeroize;

/// Bytes that are kept of what a client sends before it is asked. A client that sends more counts
/// as connected and is no longer watched.
pub(super) const LIMIT: usize = 16 * 1024;
/// The message Terminate, with which a client ends its session (PostgreSQL documentation, "Message
/// Formats").
pub(super) const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Bytes that a client has sent early, in order. They may be a secret, so they are overwritten once
/// read. An empty one holds no memory.
#[derive(Default)]
pub(super) struct Early(pub(super) BytesMut);

impl Early {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies as many bytes into `buf` as fit.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0[..length]);
        self.0[..length].zeroize();
        self.0.advance(length);
        if self.0.is_empty() {
            self.0 = BytesMut::new();
        }
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if self.0.capacity() == 0 {
            // Reserved at once, because growing would leave a copy of the bytes in the freed
            // buffer.
            self.0.reserve(LIMIT);
        }
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn room(&self) -> usize {
        LIMIT.saturating_sub(self.0.len())
    }

    /// Whether the bytes contain no request, so that a client that hangs up now waits for no
    /// answer.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_empty() || self.0.starts_with(TERMINATE)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
