//! Sessions that are signed in before a client asks for them.
//!
//! A session that waits was signed in as a mapped role and was never used. It goes to one client, with
//! exactly its start-up parameters, after the client's token was verified and the mapping lets its owner
//! use the role, and only if the server would open the same session now: see [`pgentra_session::kept`].

use std::sync::{Arc, PoisonError};

use pgentra_session::kept::{Evictions, Fingerprint, PLACE, PendingOpen, Reclaimed, keep_full};
use pgentra_session::login_error::{self, LoginError, chain, sqlstate};
use pgentra_wire::startup::StartupMessage;
use secrecy::SecretString;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::role_mapping::RoleMapping;
use crate::telemetry::with;
use crate::upstream_login::UpstreamLogin;
use crate::upstream_stream::UpstreamStream;
use crate::warm_pool::{WaitingSession, WarmPool};
use crate::{Gateway, GatewayRefusal};

impl Gateway {
    /// A session as the role, with a permit: one that waits, else a new one. `None`: none of the
    /// passwords is right.
    pub(crate) async fn session_for(
        self: &Arc<Self>,
        role: &str,
        claim: &RoleMapping,
        passwords: &[SecretString],
        start: &StartupMessage,
    ) -> Result<Option<(UpstreamLogin<UpstreamStream>, OwnedSemaphorePermit)>, LoginError> {
        // A password that depends on the client is for the server to compare, at each login.
        if !passwords.is_empty() || !self.warm.keeps(start) {
            let permit = self.place().await?;
            return Ok(self
                .open_as(role, claim, passwords, self.opening(start))
                .await?
                .map(|login| (login, permit)));
        }
        let waiting = self.warm.hand_out(start).await;
        self.count_supply(if waiting.is_some() { "hit" } else { "miss" });
        if let Some(WaitingSession { login, permit, .. }) = waiting {
            self.warm.changed.notify_one();
            return Ok(Some((login, permit)));
        }
        let permit = self.place().await?;
        let mut evictions = Evictions::default();
        let login = loop {
            match self.open_ready(role, claim, start).await {
                Ok(login) => break login,
                Err(error) if is_full(&error) => {
                    self.warm.idle.pause(Instant::now());
                    if !self.warm.idle.relieve(start, &mut evictions).await {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        if self.warm.idle.learn(start, Instant::now()) {
            self.start_refill();
            self.warm.changed.notify_one();
        }
        Ok(login.map(|login| (login, permit)))
    }

    /// A permit for a session. A session that waits is ended if all permits are taken.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, LoginError> {
        if let Ok(permit) = self.sessions.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let mut coming = None;
        for pool in &*self.all_waiting {
            match pool.idle.claim() {
                Reclaimed::Session(WaitingSession { login, permit, .. }) => {
                    // The server counts the session until it has ended, and would refuse the next one.
                    login.end().await;
                    return Ok(permit);
                }
                Reclaimed::Coming(claim) => coming = coming.or(Some((claim, &pool.changed))),
                Reclaimed::Nothing => {}
            }
        }
        let permit = match coming {
            Some((_claim, changed)) => {
                changed.notify_one();
                let freed = self.sessions.clone().acquire_owned();
                timeout(PLACE, freed).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        permit.ok_or_else(|| login_error::too_many_clients().into())
    }

    fn start_refill(self: &Arc<Self>) {
        let mut refill = self.warm.refill.lock().unwrap_or_else(PoisonError::into_inner);
        if refill.is_some() {
            return;
        }
        let gateway = Arc::downgrade(self);
        let begin = move |start, opening| {
            let gateway = gateway.upgrade()?;
            let permit = gateway.sessions.clone().try_acquire_owned().ok()?;
            Some(gateway.open_ahead(start, opening, permit))
        };
        let WarmPool { number, idle, changed, .. } = &self.warm;
        *refill = Some(tokio::spawn(keep_full(idle.clone(), *number, changed.clone(), begin)).abort_handle());
    }

    async fn open_ahead(
        self: Arc<Self>,
        start: StartupMessage,
        opening: PendingOpen<WaitingSession>,
        permit: OwnedSemaphorePermit,
    ) {
        let opened = timeout(self.config.limits.start_up, self.session_ahead(&start));
        let opened = opened.await.unwrap_or_else(|_| Err(login_error::login_timeout().into()));
        let result = match opened {
            Ok(Some((login, fingerprint))) => {
                opening.opened(WaitingSession { login, fingerprint, permit }, Instant::now());
                "ok"
            }
            Ok(None) => {
                opening.failed(Instant::now());
                "failed"
            }
            Err(error) => {
                if is_full(&error) {
                    self.warm.idle.pause(Instant::now());
                }
                opening.failed(Instant::now());
                tracing::info!(
                    server = self.config.name,
                    error = GatewayRefusal::of(error).to_string(),
                    "a session could not be opened ahead"
                );
                "failed"
            }
        };
        let ahead = &self.config.telemetry.counts().opened_ahead;
        ahead.get_or_create(&with(&self.config.name, "result", result)).inc();
    }

    /// A new session with this start-up, if its role is still mapped, and what the server says of it.
    /// `None`: no session with this start-up may wait.
    async fn session_ahead(
        &self,
        start: &StartupMessage,
    ) -> Result<Option<(UpstreamLogin<UpstreamStream>, Fingerprint)>, LoginError> {
        let Some((role, claim)) = self.claim(start.user()).await? else { return Ok(None) };
        let Some(mut login) = self.open_ready(role, &claim, start).await? else { return Ok(None) };
        match login.identify().await {
            Ok(Some(fingerprint)) => Ok(Some((login, fingerprint))),
            Ok(None) => {
                tracing::info!(role, "the server does not let sessions wait for this role and database");
                login.end().await;
                Ok(None)
            }
            Err(error) => {
                tracing::info!(role, error = chain(&error), "a session that was opened ahead is not usable");
                Ok(None)
            }
        }
    }

    /// A new session, of which everything up to ReadyForQuery has been received.
    async fn open_ready(
        &self,
        role: &str,
        claim: &RoleMapping,
        start: &StartupMessage,
    ) -> Result<Option<UpstreamLogin<UpstreamStream>>, LoginError> {
        let Some(mut login) = self.open_as(role, claim, &[], self.opening(start)).await? else {
            return Ok(None);
        };
        match login.wait_until_ready().await {
            Ok(()) => Ok(Some(login)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Ends the sessions that wait at this server and at the further ones, and keeps none from now on.
    pub(crate) fn close_waiting(&self) {
        self.members().for_each(|member| member.warm.close());
    }

    fn count_supply(&self, result: &'static str) {
        let supply = &self.config.telemetry.counts().supply;
        supply.get_or_create(&with(&self.config.name, "result", result)).inc();
    }
}

/// Whether the server has no connection free.
fn is_full(error: &LoginError) -> bool {
    matches!(error, LoginError::Rejected(fields) if fields.sqlstate() == sqlstate::TOO_MANY_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pgentra_wire::startup::ProtocolVersion;
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        AskMethod, ClientTls, Config, Flavour, GatewayTelemetry, Limits, Oauth, RoleSource, ServiceAccount,
        SessionAttrs, SessionExpiry, Unmapped, UpstreamAddress, UpstreamMethod, WarmSessions,
    };

    /// Two servers with the same data, and one place for a session.
    fn pair() -> Gateway {
        let upstream = UpstreamAddress::Unix { dir: "/nonexistent".into(), port: 5432 };
        Gateway::new(Config {
            name: "pair".to_owned(),
            tls: ClientTls::DangerOptional(None),
            upstream: upstream.clone(),
            pooler: None,
            further: vec![upstream],
            target_session_attrs: SessionAttrs::Any,
            method: UpstreamMethod::Password,
            service: ServiceAccount { name: "gateway".to_owned(), password: String::new().into() },
            roles: RoleSource::Database(Flavour::Flexible),
            unmapped: Unmapped::Refuse,
            server_name: "localhost".to_owned(),
            verifiers: Vec::new(),
            oauth: Oauth { default: AskMethod::Password, issuer: String::new(), scope: String::new() },
            clock: Arc::new(|| SystemTime::UNIX_EPOCH),
            expiry: SessionExpiry::default(),
            directory: None,
            warm: WarmSessions { number: 1, ..WarmSessions::default() },
            limits: Limits { connections: 1, ..Limits::default() },
            telemetry: GatewayTelemetry::new(|| SystemTime::UNIX_EPOCH, CancellationToken::new(), None),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_the_place_of_a_session_that_another_server_opens() {
        let gateway = pair();
        let other = &gateway.further[0].warm;
        let start = StartupMessage::new(ProtocolVersion::V3_0, "app").unwrap();
        other.idle.learn(&start, Instant::now());
        let (mut permit, begun) =
            (gateway.sessions.clone().try_acquire_owned().ok(), Arc::new(Notify::new()));
        let telling = begun.clone();
        let begin = move |_, opening: PendingOpen<WaitingSession>| {
            let (permit, telling) = (permit.take()?, telling.clone());
            Some(async move {
                let _held = (opening, permit);
                telling.notify_one();
                std::future::pending::<()>().await;
            })
        };
        let refill = tokio::spawn(keep_full(other.idle.clone(), 1, other.changed.clone(), begin));
        begun.notified().await;
        let before = Instant::now();
        let placed = gateway.place().await;
        // The task is woken, and does not look by itself after a second.
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(placed.unwrap());
        refill.abort();
    }
}
