//! A stream that hands a signed-in session over to a driver that wants to sign in itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest start-up packet that is swallowed: PostgreSQL's own limit and its length word.
const STARTUP_LIMIT: u32 = 10_004;

/// Discards the driver's start-up packet, answers it with the messages that the server has sent already, then passes all
/// bytes through.
///
/// So the driver never has the token, and no request of the server can make the driver send it.
#[derive(Debug)]
pub(crate) struct Resumed<S> {
    inner: S,
    said: Bytes,
    startup: Startup,
}

/// How much of the driver's start-up packet is still to come.
#[derive(Debug)]
enum Startup {
    Length { bytes: [u8; 4], have: usize },
    Rest(usize),
    Swallowed,
}

impl<S> Resumed<S> {
    pub(crate) fn new(inner: S, said: Bytes) -> Resumed<S> {
        Resumed { inner, said, startup: Startup::Length { bytes: [0; 4], have: 0 } }
    }

    /// Takes bytes of the start-up packet from the front of `buf`, and says how many.
    fn swallow(&mut self, buf: &[u8]) -> io::Result<usize> {
        let taken = match &mut self.startup {
            Startup::Length { bytes, have } => {
                let taken = buf.len().min(bytes.len() - *have);
                bytes[*have..*have + taken].copy_from_slice(&buf[..taken]);
                *have += taken;
                if *have == bytes.len() {
                    let length = u32::from_be_bytes(*bytes);
                    if !(8..=STARTUP_LIMIT).contains(&length) {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a start-up packet"));
                    }
                    self.startup = Startup::Rest(length as usize - 4);
                }
                taken
            }
            Startup::Rest(left) => {
                let taken = buf.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.startup = Startup::Swallowed;
                }
                taken
            }
            Startup::Swallowed => 0,
        };
        Ok(taken)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Resumed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.said.len().min(buf.remaining());
        buf.put_slice(&self.said[..length]);
        self.said.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.swallow(buf)? {
            0 => Pin::new(&mut self.inner).poll_write(cx, buf),
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn the_first_packet_is_swallowed_in_whatever_pieces_it_comes() {
        for piece in 1..20 {
            let (near, mut far) = duplex(1024);
            let mut resumed = Resumed::new(near, Bytes::from_static(b"said"));
            let mut sent = vec![0, 0, 0, 12, 0, 3, 0, 0, b'u', 0, b'x', 0];
            sent.extend_from_slice(b"query");
            for piece in sent.chunks(piece) {
                resumed.write_all(piece).await.unwrap();
            }
            let mut arrived = [0; 5];
            far.read_exact(&mut arrived).await.unwrap();
            assert_eq!(&arrived, b"query");
            far.write_all(b" more").await.unwrap();
            let mut heard = [0; 9];
            resumed.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"said more");
        }
    }

    #[tokio::test]
    async fn what_is_no_start_up_packet_is_refused() {
        for length in [0, 7, STARTUP_LIMIT + 1, u32::MAX] {
            let (near, _far) = duplex(64);
            let mut resumed = Resumed::new(near, Bytes::new());
            assert!(resumed.write_all(&length.to_be_bytes()).await.is_err());
        }
    }
}
