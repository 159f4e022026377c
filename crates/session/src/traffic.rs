//! Counts the bytes of a session, and tells what it does.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The message ReadyForQuery without its last byte, the transaction status (PostgreSQL documentation,
/// "Message Formats").
const READY: u64 = 0x5a_0000_0005;

/// What a session does, by the last bytes of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// The client has sent something, and the server has not ended its answer.
    Active,
    /// The server waits for the client, in a transaction that has failed.
    InFailedTransaction,
    /// The server waits for the client, in a transaction.
    InTransaction,
    /// The server waits for the client.
    Idle,
}

/// Bytes of one session in PostgreSQL's protocol, without TLS.
///
/// Only the session's own task writes the counters, so an addition needs no locked instruction;
/// readers see the values with a short delay. A new one is that of a session whose server waits for
/// the client.
#[derive(Debug, Default)]
pub struct Traffic {
    to_server: AtomicU64,
    to_client: AtomicU64,
    /// The last eight bytes for the client.
    tail: AtomicU64,
    /// The transaction status of the last ReadyForQuery; [`BUSY`] since the client's last bytes.
    status: AtomicU8,
}

/// The client has sent something since the last ReadyForQuery.
const BUSY: u8 = 1;

impl Traffic {
    /// Bytes received from the client.
    pub fn to_server(&self) -> u64 {
        self.to_server.load(Ordering::Relaxed)
    }

    /// Bytes written to the client.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    /// What the session does. If a client sends several queries at once, the answer to the first
    /// ends the activity. A message that happens to end like ReadyForQuery does as well, until the
    /// client's next bytes.
    pub fn activity(&self) -> Activity {
        match self.status.load(Ordering::Relaxed) {
            BUSY => Activity::Active,
            b'T' => Activity::InTransaction,
            b'E' => Activity::InFailedTransaction,
            _ => Activity::Idle,
        }
    }

    fn read(&self, bytes: usize) {
        if bytes > 0 {
            add(&self.to_server, bytes);
            self.status.store(BUSY, Ordering::Relaxed);
        }
    }

    fn written(&self, bytes: &[u8]) {
        add(&self.to_client, bytes.len());
        let tail = match bytes.last_chunk() {
            Some(last) => u64::from_be_bytes(*last),
            None => bytes
                .iter()
                .fold(self.tail.load(Ordering::Relaxed), |tail, byte| (tail << 8) | u64::from(*byte)),
        };
        self.tail.store(tail, Ordering::Relaxed);
        let [_, _, .., status] = tail.to_be_bytes();
        if (tail >> 8) & 0xff_ffff_ffff == READY && matches!(status, b'I' | b'T' | b'E') {
            self.status.store(status, Ordering::Relaxed);
        }
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
        this.traffic.read(buf.filled().len() - before);
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<'_, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.client).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            this.traffic.written(buf.get(..written).unwrap_or_default());
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

    /// ReadyForQuery is seen wherever a write ends, and nothing else changes what is known.
    #[test]
    fn what_the_session_does_is_seen() {
        let query = |traffic: &Traffic| {
            traffic.read(1);
            assert_eq!(traffic.activity(), Activity::Active);
        };
        for (status, activity) in
            [(b'I', Activity::Idle), (b'T', Activity::InTransaction), (b'E', Activity::InFailedTransaction)]
        {
            let answer = [&b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05"[..], &[status]].concat();
            for split in 0..=answer.len() {
                let traffic = Traffic::default();
                assert_eq!(traffic.activity(), Activity::Idle);
                query(&traffic);
                let (first, second) = answer.split_at(split);
                traffic.written(first);
                traffic.written(second);
                assert_eq!(traffic.activity(), activity, "split at {split}");
                // A notice between queries, and the end of the connection.
                traffic.written(b"N\0\0\0\x05\0");
                traffic.read(0);
                assert_eq!(traffic.activity(), activity);
            }
        }
        let traffic = Traffic::default();
        query(&traffic);
        for part in [&b"D\0\0\0\x0a\0\x01\0\0\0\0"[..], b"Z\0\0\0\x05X", b"Z\0\0\0\x06I", b"I"] {
            traffic.written(part);
            assert_eq!(traffic.activity(), Activity::Active, "{part:?}");
        }
    }
}
