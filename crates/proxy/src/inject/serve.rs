//! Accepts clients until told to stop, and sees every session to its end.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::login::Session;
use super::{Injector, Listener, refusal};
use crate::session::client::{Client, Socket};
use crate::session::end::End;
use crate::session::listen::{Listen, Stages, accept};
use crate::session::relay::{AsIs, relay};

impl Injector {
    /// Serves clients until `shutdown` is cancelled, then drains: the listener closes; whoever is still signing in is told
    /// 57P03; sessions get [`Limits::drain`](crate::session::Limits::drain) to end by themselves, and are cut off then.
    /// Returns when the last one is gone.
    ///
    /// Dropping the future drops the sessions too. One injector can serve several listeners: limits and cancel keys are
    /// common to them.
    pub async fn serve(self: Arc<Self>, listener: Listener, shutdown: CancellationToken) {
        match listener {
            Listener::Tcp(listener) => self.serve_on(listener, shutdown).await,
            Listener::Unix(listener) => self.serve_on(listener, shutdown).await,
        }
    }

    async fn serve_on<L: Listen>(self: Arc<Self>, listener: L, shutdown: CancellationToken) {
        let stages = Stages::until(shutdown);
        let _kill = stages.kill.clone().drop_guard();
        let tasks = TaskTracker::new();
        while let Some((stream, address, starting)) = accept(&listener, &self.starting, &stages.drain).await {
            let client = Client::new(stream, address);
            tasks.spawn(Arc::clone(&self).run(client, starting, stages.clone()));
        }
        drop(listener);
        stages.wind_up(&tasks, self.limits.drain).await;
    }

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
