//! Counts the bytes of a session.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one session in PostgreSQL's protocol, without TLS.
///
/// Only the session's own task writes the counters, so an addition needs no locked instruction;
/// readers see the values with a short delay.
#[derive(Debug, Default)]
pub struct Traffic {
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Traffic {
    /// Bytes received from the client.
    pub fn to_server(&self) -> u64 {
        self.to_server.load(Ordering::Relaxed)
    }

    /// Bytes written to the client.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }
}

fn add(count: &AtomicU64, bytes: usize) {
    count.store(count.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
}

/// A client's connection whose bytes are counted.
pub struct Counted<'a, C> {
    client: &'a mut C,
    traffic: &'a Traffic,
}

impl<'a, C> Counted<'a, C> {
    /// Counts the bytes of this client.
    pub fn new(client: &'a mut C, traffic: &'a Traffic) -> Self {
        Self { client, traffic }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<'_, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut *this.client).poll_read(cx, buf);
        add(&this.traffic.to_server, buf.filled().len() - before);
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<'_, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.client).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            add(&this.traffic.to_client, written);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().client).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().client).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_went_through_is_counted() {
        let (mut near, mut far) = duplex(4);
        let traffic = Traffic::default();
        let mut counted = Counted::new(&mut near, &traffic);
        far.write_all(b"abc").await.unwrap();
        let mut received = [0; 3];
        counted.read_exact(&mut received).await.unwrap();
        assert_eq!((&received, traffic.to_server(), traffic.to_client()), (b"abc", 3, 0));
        // Only the bytes written are counted when a write is partial.
        assert_eq!(counted.write(b"longer").await.unwrap(), 4);
        assert_eq!(traffic.to_client(), 4);
        counted.shutdown().await.unwrap();
        drop(far);
        assert_eq!(counted.read(&mut received).await.unwrap(), 0);
        assert_eq!(traffic.to_server(), 3);
    }
}
