//! Accepts connections until the shutdown, and runs every session to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::login::ServerSession;
use super::setting::SettingRenamer;
use super::{Flavour, Gateway, refusal};
use pgentra_session::client::Client;
use pgentra_session::listen::{Shutdown, accept};
use pgentra_session::login_error::chain;
use pgentra_session::relay::{AsIs, RelayOutcome, relay};
use pgentra_session::starting::{Seat, Starting};
use pgentra_session::turn_away::turn_away;

/// How often it is looked whether signing keys are due for renewal.
const KEY_CHECK: Duration = Duration::from_secs(60);

impl Gateway {
    /// Serves clients until `shutdown` is cancelled, then drains: the listener closes; a client
    /// that is still logging in gets 57P03; sessions get
    /// [`Limits::drain`](pgentra_session::Limits::drain) to end by themselves, then PostgreSQL ends
    /// them with 57P01. Returns when the last one has ended, at most some seconds later.
    ///
    /// Dropping the future drops the sessions too, without a message. One gateway can serve several
    /// listeners, which share limits and cancel keys.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        let stages = Shutdown::until(shutdown);
        let _kill = stages.kill.clone().drop_guard();
        let tasks = TaskTracker::new();
        let starting = Starting::within(&self.config.limits);
        let (gateway, until) = (self.clone(), stages.drain.clone());
        tasks.spawn(async move {
            until.run_until_cancelled(gateway.keep_keys_fresh()).await;
        });
        while let Some((stream, address, seat)) = accept(&listener, &starting, &stages.drain).await {
            let client = Client::new(stream, address);
            tasks.spawn(self.clone().run(client, seat, stages.clone()));
        }
        drop(listener);
        stages.wind_up(&tasks, self.config.limits.drain).await;
    }

    /// Renews signing keys before they are so old that a login has to wait for it. It fetches only what
    /// is due.
    async fn keep_keys_fresh(&self) {
        loop {
            tokio::time::sleep(KEY_CHECK).await;
            if let Err(error) = self.config.verifier.refresh((self.config.clock)()).await {
                tracing::warn!(
                    error = chain(&error),
                    "signing keys cannot be renewed; the old ones stay in use"
                );
            }
        }
    }

    /// Runs one connection from start to end. Both sides are closed on every path.
    async fn run(self: Arc<Self>, mut client: Client, seat: Seat, stages: Shutdown) {
        let address = client.address();
        let login = Box::pin(self.log_in(&mut client, &seat));
        let Some(login) = stages.during(login, refusal::shutting_down).await else { return };
        let session = match login {
            Ok(Some(session)) => session,
            Ok(None) => return client.close().await,
            Err(error) => return Box::pin(turn_away(client, seat, error, &stages)).await,
        };
        drop(seat);
        let outcome = tokio::select! {
            () = stages.kill.cancelled() => return,
            outcome = self.relay(&mut client, session, &stages.terminate) => outcome,
        };
        match outcome {
            RelayOutcome::ClosedByClient | RelayOutcome::ClosedByServer | RelayOutcome::Drained => {
                tracing::debug!(%address, "a session ended");
            }
            RelayOutcome::ClientIo(error) => {
                tracing::debug!(%address, %error, "the client's connection broke")
            }
            RelayOutcome::ServerIo(error) => {
                tracing::debug!(%address, %error, "the server's connection broke")
            }
        }
    }

    async fn relay(
        &self,
        client: &mut Client,
        session: ServerSession,
        terminate: &CancellationToken,
    ) -> RelayOutcome {
        let ServerSession { mut server, first, registration, _permit } = session;
        let relayed = async {
            match self.config.flavour {
                Flavour::Flexible => relay(client, &mut server, first, &mut AsIs).await,
                Flavour::Single => relay(client, &mut server, first, &mut SettingRenamer::default()).await,
            }
        };
        // Only PostgreSQL knows where an error may be inserted into a result, so PostgreSQL ends
        // the session.
        let terminated = async {
            terminate.cancelled().await;
            let process_id = registration.process_id().cast_signed();
            let sql = "SELECT pg_terminate_backend($1)";
            if let Err(error) = self.control.query(sql, &[&process_id]).await {
                tracing::warn!(%error, "a session could not be terminated");
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = relayed => ended,
            never = terminated => never,
        }
    }
}
