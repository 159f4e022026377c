//! Accepts clients until told to stop, and sees every session to its end.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::login::Session;
use super::refill::RefillGuard;
use super::{AuthProxy, Listener, ProxyHandle, refusal};
use crate::drain::{Drain, DrainWatch, is_drained};
use crate::telemetry::{ConnectionRecord, Ended, Listening};
use pgentra_session::client::{Client, Socket};
use pgentra_session::listen::{Listen, Shutdown, accept};
use pgentra_session::login_error::LoginError;
use pgentra_session::relay::{AsIs, Broken, Filter, Side, hang_up, relay};
use pgentra_session::starting::{Seat, Starting};
use pgentra_session::tracker::ProtocolTracker;
use pgentra_session::traffic::Counted;

/// The message Terminate (PostgreSQL documentation, "Message Formats").
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// How serving comes to its end.
#[derive(Clone, Debug, Default)]
pub struct ShutdownTokens {
    /// Cancelled: the listener closes, sessions go on for as long as they like.
    pub listening: CancellationToken,
    /// Cancelled: the listener closes, and sessions are drained.
    pub serving: CancellationToken,
    /// Cancelled as well: sessions get no time to end by themselves.
    pub waiting: CancellationToken,
}

impl AuthProxy {
    /// Serves clients until `shutdown` is cancelled, then drains: see [`ProxyHandle::serve`].
    pub fn serve(
        self: Arc<Self>,
        listener: Listener,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        ProxyHandle::new(self)
            .serve(listener, ShutdownTokens { serving: shutdown, ..ShutdownTokens::default() })
    }
}

impl ProxyHandle {
    /// Serves clients until `stop` says otherwise. Drained means: whoever is still signing in is told 57P03; sessions get
    /// [`Limits::drain`](pgentra_session::Limits::drain) to end by themselves, or to come to the end of their transaction
    /// ([`Options::drain`](super::Options::drain)). The rest are told 57P01 then where the client waits for an answer, and cut
    /// off where it is in the middle of one; so it is at once when `stop` says that there is no time. Returns when the last one is
    /// gone.
    ///
    /// Dropping the future drops the sessions too. One injector can serve several listeners: limits and cancel keys are
    /// common to them. Whoever looks sees that the listener is up from when this was called.
    pub fn serve(self, listener: Listener, stop: ShutdownTokens) -> impl Future<Output = ()> + Send {
        let up = self.get().shown_at(match &listener {
            Listener::Tcp(listener) => listener.name(),
            Listener::Unix(listener) => listener.name(),
        });
        async move {
            match listener {
                Listener::Tcp(listener) => self.serve_on(listener, stop, up).await,
                Listener::Unix(listener) => self.serve_on(listener, stop, up).await,
            }
        }
    }

    async fn serve_on<L: Listen>(self, listener: L, stop: ShutdownTokens, mut up: Listening) {
        let mut replaced = self.replaced();
        let mut keeping = RefillGuard::of(self.get());
        let stages = Shutdown { hurry: stop.waiting, ..Shutdown::until(stop.serving) };
        let _kill = stages.kill.clone().drop_guard();
        let tasks = TaskTracker::new();
        // Of this listener alone: what happens at one closes no other.
        let starting = Starting::within(&self.get().limits);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stages.drain.cancelled() => None,
                Ok(()) = replaced.changed() => {
                    // The listener is another target's now, perhaps.
                    up = self.get().shown_at(listener.name());
                    keeping = RefillGuard::of(self.get());
                    continue;
                }
                accepted = accept(&listener, &starting, &stop.listening) => accepted,
            };
            let Some((stream, address, seat)) = accepted else { break };
            let client = Client::new(stream, address);
            tasks.spawn(self.get().run(client, seat, stages.clone()));
        }
        drop((listener, up, keeping));
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = stages.drain.cancelled() => stages.wind_up(&tasks, self.get().limits.drain).await,
        }
    }
}

impl AuthProxy {
    /// Shows that this listener is its own until what this returns is dropped. Only now, as one that was made may never serve.
    fn shown_at(&self, address: String) -> Listening {
        self.telemetry.served_by(&self.connector, self.limits.connections);
        self.telemetry.listens_on(address)
    }

    /// One connection from start to end. Whatever way it goes, both sides are closed with it.
    async fn run<S: Socket>(self: Arc<Self>, mut client: Client<S>, seat: Seat, stages: Shutdown) {
        let address = client.address();
        let mut visit = ConnectionRecord::begin(&self.telemetry, address);
        let signed_in = tokio::select! {
            biased;
            () = stages.kill.cancelled() => return,
            // Boxed, like whatever else is over before the session begins: an idle one does not pay for it.
            signed_in = Box::pin(self.enter(&mut client, &mut visit, &seat)) => signed_in,
            () = stages.drain.cancelled() => Err(refusal::shutting_down().into()),
        };
        let mut session = match signed_in {
            Ok(Some(session)) => session,
            Ok(None) => return Box::pin(client.close()).await,
            Err(LoginError::Rejected(fields)) => {
                // As a text it is written with escapes: a client may have had its own lines in it.
                tracing::info!(%address, reason = fields.to_string(), "a client was refused");
                visit.refused(&fields);
                if !seat.leave() {
                    return Box::pin(client.tell_at_once(fields)).await;
                }
                tokio::select! {
                    () = stages.kill.cancelled() => {}
                    () = seat.closed() => {}
                    () = Box::pin(client.tell(fields)) => {}
                }
                return;
            }
            Err(LoginError::Unanswered(error)) => {
                tracing::debug!(%address, %error, "a connection was closed without an answer, as its first packet is none");
                return Box::pin(client.close()).await;
            }
            Err(LoginError::Disconnected(error)) => {
                tracing::debug!(%address, %error, "a client left before its session began");
                return;
            }
        };
        drop(seat);
        let observed = visit.signed_in(std::mem::take(&mut session.sign_in));
        let traffic = observed.traffic();
        let mut watched = DrainWatch::new(&mut client, self.drain, &stages.drain);
        let relayed = {
            let mut counted = Counted::new(&mut watched, &traffic);
            let mut relaying = pin!(self.relay_session(&mut counted, session));
            let mut is_draining = self.drain == Drain::Session;
            loop {
                tokio::select! {
                    biased;
                    () = stages.terminate.cancelled() => break None,
                    relayed = &mut relaying => break Some(relayed),
                    // One that is at rest then is polled once more, and notices.
                    () = stages.drain.cancelled(), if !is_draining => is_draining = true,
                }
            }
        };
        let is_told = match &relayed {
            None => watched.is_between_messages(),
            Some(Err(Broken::Source(error))) => is_drained(error),
            Some(_) => false,
        };
        let ended = match relayed {
            Some(Ok(side)) => {
                tracing::debug!(%address, "a session ended");
                if side == Side::Client { Ended::Client } else { Ended::Server }
            }
            Some(Err(error)) if !is_told => {
                tracing::debug!(%address, %error, "a session broke");
                if matches!(error, Broken::Source(_)) { Ended::Client } else { Ended::Server }
            }
            _ => {
                tracing::info!(%address, is_told, "a session was ended");
                if is_told { Ended::Drained } else { Ended::Cut }
            }
        };
        observed.ended(ended);
        if is_told {
            tokio::select! {
                () = stages.kill.cancelled() => {}
                () = Box::pin(client.tell(refusal::terminated())) => {}
            }
        }
    }

    /// A session from its first query to its end, or until it is taken back.
    async fn relay_session<C>(&self, client: &mut C, mut session: Box<Session>) -> Result<Side, Broken>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let first = std::mem::take(&mut session.first);
        let server = &mut session.upstream.stream;
        if session.start.is_none() {
            let relayed = relay(client, server, first, &mut AsIs).await;
            return send_terminate(server, relayed).await;
        }
        let mut position = ProtocolTracker::default();
        position.see(&first);
        let relayed = relay(client, server, first, &mut position).await;
        let side = send_terminate(server, relayed).await?;
        if position.ended_idle() {
            // Boxed, as an idle session would pay for it.
            Box::pin(async {
                // The relay has delivered everything; the client hears at once that it may go.
                let _ = client.shutdown().await;
                session.client = None;
                self.recycle(*session, position.into_settings()).await;
                // To close while bytes of the client are unread would have the system drop what the client has not read.
                hang_up(client).await;
            })
            .await;
        }
        Ok(side)
    }
}

/// Ends a session at rest as a client would, so that the server does not complain of a connection that broke.
async fn send_terminate<S: AsyncWrite + Unpin>(
    server: &mut S,
    relayed: Result<Side, Broken>,
) -> Result<Side, Broken> {
    if let Err(Broken::Source(error)) = &relayed
        && is_drained(error)
    {
        let left = async {
            server.write_all(TERMINATE).await?;
            server.shutdown().await
        };
        if let Err(error) = Box::pin(left).await {
            tracing::debug!(%error, "the server could not be told that a session is over");
        }
    }
    relayed
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// What a session's task is made of, without running it.
    fn size<F>(_: impl Fn(Arc<AuthProxy>, Client<TcpStream>, Seat, Shutdown) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle session is little more than its task: what is over before it begins, or comes after it, is boxed.
    #[test]
    fn an_idle_session_pays_for_nothing_else() {
        let task = size(AuthProxy::run::<TcpStream>);
        assert!(task <= 2048, "{task} bytes");
    }
}
