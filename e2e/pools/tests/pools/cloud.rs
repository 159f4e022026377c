//! A local Azure, a PostgreSQL and a gateway in this process, all by one clock that can be moved.

use std::time::{Duration, SystemTime};

use pgentra_connect::Connector;
use pgentra_emulator::{Endpoint, LocalAzure};
use pgentra_local::{Host, LocalCloud};
use pgentra_session::Limits;
use pgentra_system::{Clock as _, RuntimeClock};

/// The lifetime of a token here.
pub(crate) const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The time after expiry at which a verifier refuses the token.
pub(crate) const LEEWAY: Duration = Duration::from_secs(10 * 60);

/// The role of the machine's identity.
pub(crate) const ROLE: &str = "myVm";
/// A role of another identity.
pub(crate) const OTHER_ROLE: &str = "myIdentity";

pub(crate) struct Cloud {
    cloud: LocalCloud,
}

impl Cloud {
    pub(crate) async fn start() -> Cloud {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = RuntimeClock::starting_at(start);
        let cloud = LocalCloud::builder()
            .clock(pgentra_emulator::Clock::following(move || clock.now()))
            .limits(Limits { drain: Duration::ZERO, ..Limits::default() })
            .azure(|options| options.lifetimes.managed_identity = LIFETIME);
        let mut cloud = cloud.start().await.unwrap();
        cloud.create_roles().await.unwrap();
        Cloud { cloud }
    }

    /// Signs in with the machine's own identity, as `role`.
    pub(crate) fn connector(&self, role: &str) -> Connector {
        self.connector_with(role, &[])
    }

    /// The same with flags, which override everything else.
    pub(crate) fn connector_with(&self, role: &str, flags: &[(&str, String)]) -> Connector {
        let flags = [&[("user", role.to_owned())], flags].concat();
        self.cloud.connector(Host::Vm, &flags).unwrap()
    }

    /// Advances the clock. Timers that have passed fire.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    /// The services that issue the tokens.
    pub(crate) fn azure(&self) -> &LocalAzure {
        self.cloud.azure()
    }

    /// How often the metadata service was asked for a token.
    pub(crate) fn token_requests(&self) -> usize {
        self.azure().journal().count(Endpoint::ImdsToken)
    }

    /// Ends every session, as a server does that is shut down, and serves again at the same port.
    pub(crate) async fn restart(&mut self) {
        self.cloud.restart_gateway().await.unwrap();
    }

    /// Ends every session of the machine's role.
    pub(crate) async fn end_sessions(&self) {
        let superuser = self.cloud.superuser("postgres").await.unwrap();
        let end =
            format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{ROLE}'");
        superuser.batch_execute(&end).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        self.cloud.stop().await;
    }
}
