//! Accepts clients until told to stop, and sees every session to its end.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::login::Session;
use super::{Current, Injector, Listener, refusal};
use crate::session::client::{Client, Socket};
use crate::session::end::End;
use crate::session::listen::{Listen, Stages, accept};
use crate::session::relay::{AsIs, relay};

/// How serving comes to its end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled: the listener closes, sessions go on for as long as they like.
    pub listening: CancellationToken,
    /// Cancelled: the listener closes, and sessions are drained.
    pub serving: CancellationToken,
}

impl Injector {
    /// Serves clients until `shutdown` is cancelled, then drains: see [`Current::serve`].
    pub async fn serve(self: Arc<Self>, listener: Listener, shutdown: CancellationToken) {
        let stop = Stop { serving: shutdown, ..Stop::default() };
        Current::new(self).serve(listener, stop).await;
    }
}

impl Current {
    /// Serves clients until `stop` says otherwise. Drained means: whoever is still signing in is told 57P03; sessions get
    /// [`Limits::drain`](crate::session::Limits::drain) to end by themselves, and are cut off then. Returns when the last one
    /// is gone.
    ///
    /// Dropping the future drops the sessions too. One injector can serve several listeners: limits and cancel keys are
    /// common to them.
    pub async fn serve(self, listener: Listener, stop: Stop) {
        match listener {
            Listener::Tcp(listener) => self.serve_on(listener, stop).await,
            Listener::Unix(listener) => self.serve_on(listener, stop).await,
        }
    }

    async fn serve_on<L: Listen>(self, listener: L, stop: Stop) {
        let stages = Stages::until(stop.serving);
        let _kill = stages.kill.clone().drop_guard();
        let tasks = TaskTracker::new();
        loop {
            let starting = Arc::clone(&self.get().starting);
            let accepted = tokio::select! {
                biased;
                () = stages.drain.cancelled() => None,
                accepted = accept(&listener, &starting, &stop.listening) => accepted,
            };
            let Some((stream, address, starting)) = accepted else { break };
            let client = Client::new(stream, address);
            tasks.spawn(self.get().run(client, starting, stages.clone()));
        }
        drop(listener);
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = stages.drain.cancelled() => stages.wind_up(&tasks, self.get().limits.drain).await,
        }
    }
}

impl Injector {
    /// One connection from start to end. Whatever way it goes, both sides are closed with it.
    async fn run<S: Socket>(
        self: Arc<Self>,
        mut client: Client<S>,
        starting: OwnedSemaphorePermit,
        stages: Stages,
    ) {
        let address = client.address();
        let signed_in = tokio::select! {
            biased;
            () = stages.kill.cancelled() => return,
            signed_in = self.sign_in(&mut client) => signed_in,
            () = stages.drain.cancelled() => Err(refusal::shutting_down().into()),
        };
        let session = match signed_in {
            Ok(Some(session)) => session,
            Ok(None) => return,
            Err(End::Told(fields)) => {
                // As a text it is written with escapes: a client may have had its own lines in it.
                tracing::info!(%address, reason = fields.to_string(), "a client was refused");
                tokio::select! {
                    () = stages.kill.cancelled() => {}
                    () = client.tell(fields) => {}
                }
                return;
            }
            Err(End::Gone(error)) => {
                tracing::debug!(%address, %error, "a client left before its session began");
                return;
            }
        };
        drop(starting);
        let Session { mut server, first, _registration, _place } = session;
        let mut as_is = AsIs;
        tokio::select! {
            // Only the server knows where a message may stand between the bytes of a result: no farewell from here.
            () = stages.terminate.cancelled() => tracing::info!(%address, "a session was cut off"),
            ended = relay(&mut client, &mut server, first, &mut as_is) => match ended {
                Ok(()) => tracing::debug!(%address, "a session ended"),
                Err(error) => tracing::debug!(%address, %error, "a session broke"),
            },
        }
    }
}
