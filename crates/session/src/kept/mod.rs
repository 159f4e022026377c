//! Sessions with a server that wait for a client: signed in ahead, or left by another client.
//!
//! [`IdleSessions`] stores them by the start-up with which they were opened, and gives each of them to
//! one client. [`keep_full`] opens those that are missing. [`identify`] and
//! [`is_unchanged`] ask the server whether a session equals one that would be opened now.

mod bucket;
mod fingerprint;
mod guards;
mod hand_out;
mod idle;
mod refill;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::limits;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_util::io::poll_read_buf;

pub use fingerprint::{
    FINGERPRINT_QUERY, Fingerprint, Latest, Message, Unanswered, identify, is_unchanged, query,
};
pub use guards::{Checkin, Claim, PendingOpen};
pub use hand_out::{Evictions, PLACE};
pub use idle::{IdleSessions, Reclaimed};
pub use refill::keep_full;

use crate::client::linger;

/// `idle_session_timeout` (PostgreSQL documentation, "PostgreSQL Error Codes").
const IDLE_SESSION_TIMEOUT: &str = "57P05";
/// The message Terminate (PostgreSQL documentation, "Message Formats").
const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Time for the server to end a session that is no longer needed.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time for the server to answer the question for a fingerprint. It takes less than a millisecond.
pub const CHECK: Duration = Duration::from_secs(2);

/// A session that can wait for a client.
pub trait Idle: Send + 'static {
    /// Whether the session is still usable. Any bytes that the server sent meanwhile make it
    /// unusable.
    ///
    /// # Errors
    /// Why it is not.
    fn check(&mut self) -> Result<(), Unhealthy>;

    /// Whether a new session would equal this one, by an answer of the server that is not older
    /// than `since`.
    ///
    /// # Errors
    /// The session cannot be used.
    fn is_as_new(
        &mut self,
        latest: &Latest,
        since: Instant,
    ) -> impl Future<Output = Result<bool, Unanswered>> + Send;

    /// Ends it, and waits until the server has closed the connection, which frees its slot there.
    fn end(self) -> impl Future<Output = ()> + Send;
}

/// Why a session is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// The server ended it because it was idle (57P05).
    IdleTimeout,
    /// The server ended it for another reason, or sent something.
    Disturbed,
    /// It is older than its lifetime, or its server has become a wrong one.
    Outlived,
}

/// Whether no byte has arrived at a socket, and it is open. The system is asked, because the runtime
/// may not know of the last bytes yet.
pub fn is_silent(socket: &SockRef<'_>) -> bool {
    let arrived = socket.peek(&mut [MaybeUninit::uninit()]);
    arrived.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads what the server has sent without a question. `None`: nothing, and the connection is open.
pub fn unasked<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Unhealthy> {
    let mut received = BytesMut::new();
    let mut cx = Context::from_waker(Waker::noop());
    let mut is_open = true;
    while received.len() <= limits::BACKEND_MESSAGE {
        match poll_read_buf(Pin::new(&mut *stream), &mut cx, &mut received) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => {
                is_open = false;
                break;
            }
            Poll::Pending => break,
        }
    }
    if is_open && received.is_empty() {
        return None;
    }
    while let Ok(Some(message)) = BackendMessage::decode(&mut received) {
        match message {
            BackendMessage::ErrorResponse(fields) if fields.sqlstate() == IDLE_SESSION_TIMEOUT => {
                return Some(Unhealthy::IdleTimeout);
            }
            _ => {}
        }
    }
    Some(Unhealthy::Disturbed)
}

/// Sends Terminate, so that the server logs no broken connection.
///
/// # Errors
/// The connection is broken.
pub async fn terminate<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(TERMINATE).await?;
    stream.flush().await
}

/// Sends Terminate and waits, for at most a second, until the server has closed the connection.
pub async fn end<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let ended = async {
        terminate(stream).await?;
        linger(stream).await
    };
    let _ = timeout(FAREWELL, ended).await;
}
