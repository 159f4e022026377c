//! Accepts clients until the shutdown, and runs every session to its end.

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

/// The tokens that end serving.
#[derive(Clone, Debug, Default)]
pub struct ShutdownTokens {
    /// Cancelled: the listener closes, and sessions go on without a time limit.
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
    /// Serves clients until a token of `stop` is cancelled. In a drain, a client that is still
    /// signing in gets 57P03. Sessions get [`Limits::drain`](pgentra_session::Limits::drain) to end
    /// by themselves, or to reach the end of their transaction
    /// ([`Options::drain`](super::Options::drain)). After that, clients that wait for an answer get
    /// 57P01, and those in the middle of one are cut off. If `stop` skips the drain, this happens
    /// at once. Returns when the last session has ended.
    ///
    /// Dropping the future drops the sessions too. One proxy can serve several listeners, which
    /// share limits and cancel keys. Telemetry shows the listener as up from this call on.
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
        // One for each listener: load on one listener closes no connection of another.
        let starting = Starting::within(&self.get().limits);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stages.drain.cancelled() => None,
                Ok(()) = replaced.changed() => {
                    // A reload may have given the listener to another target.
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
    /// Shows the listener as up until the returned value is dropped.
    fn shown_at(&self, address: String) -> Listening {
        self.telemetry.served_by(&self.connector, self.limits.connections, self.client_auth().access());
        self.telemetry.listens_on(address)
    }

    /// Runs one connection from start to end. Both sides are closed on every path.
    async fn run<S: Socket>(self: Arc<Self>, mut client: Client<S>, seat: Seat, stages: Shutdown) {
        let address = client.address();
        let mut record = ConnectionRecord::begin(&self.telemetry, address);
        let signed_in = tokio::select! {
            biased;
            () = stages.kill.cancelled() => return,
            // Boxed, as everything that ends before the session begins: it keeps the task of an
            // idle session small.
            signed_in = Box::pin(self.enter(&mut client, &mut record, &seat)) => signed_in,
            () = stages.drain.cancelled() => Err(refusal::shutting_down().into()),
        };
        let mut session = match signed_in {
            Ok(Some(session)) => session,
            Ok(None) => return Box::pin(client.close()).await,
            Err(LoginError::Rejected(fields)) => {
                // Formatted as a string field, so that line breaks from the client are escaped.
                tracing::info!(%address, reason = fields.to_string(), "a client was refused");
                record.refused(&fields);
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
                tracing::debug!(%address, %error, "a connection was closed without an answer: its first packet is not of the protocol");
                return Box::pin(client.close()).await;
            }
            Err(LoginError::Disconnected(error)) => {
                tracing::debug!(%address, %error, "a client left before its session began");
                return;
            }
        };
        drop(seat);
        let observed = record.signed_in(std::mem::take(&mut session.sign_in));
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
                    // Polls the relay once more, so that an idle session sees the drain.
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

    /// Relays a session from its first query until it ends or goes back to the pool.
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
        let mut tracker = ProtocolTracker::default();
        tracker.see(&first);
        let relayed = relay(client, server, first, &mut tracker).await;
        let side = send_terminate(server, relayed).await?;
        if tracker.ended_idle() {
            // Boxed to keep the task of an idle session small.
            Box::pin(async {
                // The relay has delivered everything; the client gets the end of the connection at
                // once.
                let _ = client.shutdown().await;
                session.client = None;
                self.recycle(*session, tracker.into_settings()).await;
                // Closing with unread bytes of the client would make the system drop bytes that the
                // client has not read.
                hang_up(client).await;
            })
            .await;
        }
        Ok(side)
    }
}

/// Sends Terminate to an idle session, so that the server logs no broken connection.
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
            tracing::debug!(%error, "Terminate could not be sent to the server");
        }
    }
    relayed
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// The size of a session's task, without running it.
    fn size<F>(_: impl Fn(Arc<AuthProxy>, Client<TcpStream>, Seat, Shutdown) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle session costs little more than its task: the parts before and after the session are
    /// boxed.
    #[test]
    fn an_idle_session_pays_for_nothing_else() {
        let task = size(AuthProxy::run::<TcpStream>);
        assert!(task <= 2048, "{task} bytes");
    }
}
