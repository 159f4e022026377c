//! A connection that can be made to break off after a number of bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many more bytes a connection may send. Clones share one allowance.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub(crate) fn unlimited() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// Only this many bytes from now on.
    pub(crate) fn limit(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    fn left(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn spend(&self, bytes: usize) {
        // The largest value means "no limit", and stays.
        let left = self.left();
        if left != u64::MAX {
            self.limit(left.saturating_sub(bytes as u64));
        }
    }
}

/// A stream whose writes fail once its allowance is spent.
#[derive(Debug)]
pub(crate) struct Cuttable<S> {
    stream: S,
    allowance: Allowance,
}

impl<S> Cuttable<S> {
    pub(crate) fn new(stream: S, allowance: Allowance) -> Self {
        Self { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.allowance.left();
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // Up to the last byte allowed: a fault names the exact byte after which the connection breaks.
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let written = Pin::new(&mut self.stream).poll_write(cx, buf.get(..part).unwrap_or(buf));
        if let Poll::Ready(Ok(bytes)) = written {
            self.allowance.spend(bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn exactly_the_allowed_bytes_arrive() {
        let (near, mut far) = tokio::io::duplex(64);
        let allowance = Allowance::unlimited();
        let mut cuttable = Cuttable::new(near, allowance.clone());
        cuttable.write_all(b"whole ").await.unwrap();
        allowance.limit(3);
        assert!(cuttable.write_all(b"broken").await.is_err());
        drop(cuttable);
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "whole bro");
    }
}
