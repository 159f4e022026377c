//! What happens to a session when its token expires.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pgentra_session::tracker::ProtocolTracker;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::fields::{Fields, Severity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What happens to a session when its token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionExpiry {
    /// Nothing, as on Azure.
    #[default]
    Off,
    /// The client gets a notice so long before.
    Warn(Duration),
    /// The client gets a notice so long before; then PostgreSQL ends the session (SQLSTATE 57P01).
    End(Duration),
}

impl SessionExpiry {
    /// When the client gets its notice, if the token has so much time left.
    pub(crate) fn notice_after(self, left: Duration) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Warn(before) | Self::End(before) => Some(left.saturating_sub(before)),
        }
    }

    /// When the session is ended.
    pub(crate) fn end_after(self, left: Duration) -> Option<Duration> {
        matches!(self, Self::End(_)).then_some(left)
    }
}

/// A client's connection that gets a notice between two messages of the server.
///
/// It follows the messages of both sides from the beginning of the session, because a notice may
/// only stand between two of them.
pub(crate) struct Noticed<'a, C> {
    client: &'a mut C,
    tracker: ProtocolTracker,
    due: Option<Pin<Box<Sleep>>>,
    message: BytesMut,
    /// What of the notice is not sent yet, once it is due.
    sending: BytesMut,
}

impl<'a, C> Noticed<'a, C> {
    /// The notice is sent after this time; it says whether the session ends after `left`.
    pub(crate) fn new(client: &'a mut C, after: Duration, left: Duration, ends: bool) -> Self {
        let mut message = BytesMut::new();
        // A notice that cannot be written is none.
        let _ = BackendMessage::NoticeResponse(notice(left.saturating_sub(after), ends)).encode(&mut message);
        let due = Some(Box::pin(tokio::time::sleep(after)));
        Self { client, tracker: ProtocolTracker::default(), due, message, sending: BytesMut::new() }
    }
}

fn notice(left: Duration, ends: bool) -> Fields {
    let minutes = left.as_secs().div_ceil(60);
    let message = match ends {
        true => format!("the access token of this session expires in {minutes} min; the session ends then"),
        false => format!("the access token of this session expires in {minutes} min"),
    };
    Fields::new(Severity::Notice, "01000", &message).with_hint("Connect again with a new token.")
}

impl<C: AsyncWrite + Unpin> Noticed<'_, C> {
    /// Sends the rest of a notice that has begun.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sending.is_empty() {
            match ready!(Pin::new(&mut *self.client).poll_write(cx, &self.sending))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sending.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Begins the notice if it is due and fits here.
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(due) = &mut self.due
            && due.as_mut().poll(cx).is_ready()
            && self.tracker.is_between_answers()
        {
            self.due = None;
            self.sending = std::mem::take(&mut self.message);
            ready!(self.poll_rest(cx))?;
            return Pin::new(&mut *self.client).poll_flush(cx);
        }
        self.poll_rest(cx)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Noticed<'_, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What the client sends can wait for neither: it is read in any case.
        if let Poll::Ready(Err(error)) = this.poll_notice(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut *this.client).poll_read(cx, buf);
        // A client's Terminate does not matter here.
        let _ = this.tracker.client(&buf.filled()[before..]);
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Noticed<'_, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        let polled = Pin::new(&mut *this.client).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            this.tracker.server(&buf[..written]);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A message of the server has ended, perhaps after the notice became due.
        ready!(this.poll_notice(cx))?;
        Pin::new(&mut *this.client).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        Pin::new(&mut *this.client).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use pgentra_session::relay::{AsIs, relay};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const ROW: &[u8] = b"D\0\0\0\x08rows";
    const READY: &[u8] = b"Z\0\0\0\x05I";

    #[tokio::test(start_paused = true)]
    async fn a_notice_stands_between_two_messages_only() {
        let (mut client, mut near) = duplex(4096);
        let (mut server, mut far) = duplex(4096);
        let relayed = tokio::spawn(async move {
            let mut near = Noticed::new(&mut near, Duration::from_secs(60), Duration::from_secs(120), true);
            relay(&mut near, &mut far, BytesMut::new(), &mut AsIs).await;
        });
        client.write_all(b"Q\0\0\0\x06;\0").await.unwrap();
        let mut query = [0; 7];
        server.read_exact(&mut query).await.unwrap();
        server.write_all(&ROW[..4]).await.unwrap();
        let mut head = [0; 4];
        client.read_exact(&mut head).await.unwrap();
        // The time passes in the middle of a message, which is finished first.
        tokio::time::advance(Duration::from_secs(90)).await;
        server.write_all(&[&ROW[4..], READY].concat()).await.unwrap();
        let mut answer = vec![0; ROW.len() - 4 + READY.len()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [&ROW[4..], READY].concat());
        let mut head = [0; 5];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], b'N');
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        client.read_exact(&mut body).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("expires in 1 min; the session ends then"), "{text}");
        drop((client, server));
        relayed.await.unwrap();
    }

    #[test]
    fn times_of_a_session() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        assert_eq!(SessionExpiry::Off.notice_after(hour), None);
        assert_eq!(SessionExpiry::Warn(minute).notice_after(hour), Some(hour - minute));
        assert_eq!(SessionExpiry::Warn(minute).end_after(hour), None);
        assert_eq!(SessionExpiry::End(hour).notice_after(minute), Some(Duration::ZERO));
        assert_eq!(SessionExpiry::End(hour).end_after(minute), Some(minute));
    }
}
