//! From a client's first byte to its session.

use bytes::BytesMut;
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::startup::{CancelRequest, ProtocolVersion, StartupMessage};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::auth::ClientAuth;
use super::upstream::{Cancel, Upstream};
use super::{AuthProxy, Naming, refusal};
use crate::session_limit::SessionPermit;
use crate::telemetry::{Cancelled, ConnectionRecord, SignIn};
use pgentra_session::cancel::{Passed, Registration};
use pgentra_session::client::{Client, Opening, Socket};
use pgentra_session::login_error::LoginError;
use pgentra_session::starting::Seat;

/// A session that is ready.
pub(crate) struct Session {
    pub(crate) upstream: Upstream,
    /// What the server sent behind its ReadyForQuery.
    pub(crate) first: BytesMut,
    /// The client's cancel key.
    pub(crate) registration: Option<Registration<Cancel>>,
    pub(crate) sign_in: SignIn,
    /// The client, as it is counted while it has the session.
    pub(crate) client: Option<SessionPermit>,
    /// What the session can be used for again, if it can.
    pub(crate) start: Option<StartupMessage>,
}

impl AuthProxy {
    /// Goes from the connection to ReadyForQuery. `None`: it was a cancel request, and is done.
    ///
    /// Not cancel-safe; dropped, the client can still be told why.
    pub(crate) async fn enter<S: Socket>(
        &self,
        client: &mut Client<S>,
        visit: &mut ConnectionRecord,
        seat: &Seat,
    ) -> Result<Option<Box<Session>>, LoginError> {
        let client_auth = self.client_auth();
        // Before anything else, so that a user who may not come in takes nothing from those who may.
        if !client.is_trusted(&client_auth.uids) {
            return Err(refusal::peer_uid_denied(client.address()).into());
        }
        let first = Instant::now() + self.limits.first_packet.min(self.limits.start_up);
        seat.arrive(client, first).await?;
        // Boxed: a silent connection does not pay for it.
        Box::pin(self.sign_in(client, visit, (seat, &client_auth), first)).await
    }

    async fn sign_in<S: Socket>(
        &self,
        client: &mut Client<S>,
        visit: &mut ConnectionRecord,
        (seat, client_auth): (&Seat, &ClientAuth),
        first: Instant,
    ) -> Result<Option<Box<Session>>, LoginError> {
        let opening = seat.ask(self.authenticate_client(client, client_auth, visit, first)).await?;
        seat.admitted();
        let start = match opening {
            Opening::Startup(start) => start,
            Opening::Cancel(request) => {
                self.forward_cancel(&request).await;
                return Ok(None);
            }
        };
        let upstream = self.upstream_start(&start, client_auth)?;
        visit.asks_for(&upstream);
        let session = client.while_present(self.session(&upstream)).await?;
        tracing::info!(
            address = %client.address(),
            role = &*String::from_utf8_lossy(upstream.user()),
            database = &*String::from_utf8_lossy(upstream.database()),
            tls = %session.tls,
            "a client is signed in"
        );
        let long_keys = start.version() >= ProtocolVersion::V3_2;
        let again = (self.reuse && self.keeps(&upstream)).then_some(upstream);
        self.welcome(client, session, long_keys, again).await.map(Some)
    }

    /// A request with a key that nobody holds is ignored, as PostgreSQL does: the answer tells no one anything.
    pub(crate) async fn forward_cancel(&self, request: &CancelRequest) {
        let passed = self
            .shared
            .cancel
            .forward_cancel(request, |canceller| async move { canceller.forward_cancel().await });
        self.telemetry.cancelled(match passed.await {
            Passed::UnknownKey => {
                tracing::debug!("a cancel request with an unknown key");
                Cancelled::UnknownKey
            }
            Passed::WithAnother => Cancelled::WithAnother,
            Passed::Alone(Ok(())) => Cancelled::PassedOn,
            Passed::Alone(Err(error)) => {
                tracing::warn!(%error, "a cancel request could not be passed on");
                Cancelled::Failed
            }
        });
    }

    /// The start-up for the server: the client's own, with what the target decides. Protocol options have been answered
    /// here, so they stay here.
    fn upstream_start(
        &self,
        start: &StartupMessage,
        client_auth: &ClientAuth,
    ) -> Result<StartupMessage, LoginError> {
        let target = self.connector.target();
        let asked = start.get("database").filter(|name| !name.is_empty());
        let role = client_auth.role(start.user())?;
        let role = self.decide("role", target.named_user(), role)?;
        let database = match (target.named_database(), asked) {
            (Some(named), Some(asked)) => Some(self.decide("database", Some(named), asked)?),
            (Some(named), None) => Some(named.as_bytes()),
            (None, asked) => asked,
        };
        let mut upstream = start
            .clone()
            .without(|name| name.starts_with(b"_pq_."))
            .with_version(ProtocolVersion::V3_0)
            .with("user", role)?;
        let defaults = [("application_name", target.application_name()), ("options", target.options())];
        let missing = |name: &str| start.get(name).is_none();
        let defaults = defaults.into_iter().filter(|(name, _)| missing(name));
        let defaults = defaults.filter_map(|(name, value)| Some((name, value?.as_bytes())));
        for (name, value) in database.map(|name| ("database", name)).into_iter().chain(defaults) {
            upstream = upstream.with(name, value)?;
        }
        Ok(upstream)
    }

    /// A name that the target may have fixed.
    fn decide<'a>(
        &self,
        what: &str,
        named: Option<&'a str>,
        asked: &'a [u8],
    ) -> Result<&'a [u8], LoginError> {
        match (named.map(str::as_bytes), self.naming) {
            (None, _) => Ok(asked),
            (Some(named), Naming::Pinned) => Ok(named),
            (Some(named), Naming::Same) if named == asked => Ok(named),
            (Some(named), Naming::Same) => Err(refusal::name_mismatch(what, named, asked).into()),
        }
    }

    /// Passes on what the server said until it was ready, with a cancel key of our own.
    async fn welcome<S: Socket>(
        &self,
        client: &mut Client<S>,
        upstream: Upstream,
        long_keys: bool,
        start: Option<StartupMessage>,
    ) -> Result<Box<Session>, LoginError> {
        let mut said = BytesMut::from(&upstream.said[..]);
        let mut out = BytesMut::with_capacity(said.len() + 64);
        let mut registration = None;
        while let Some(message) = BackendMessage::decode(&mut said)? {
            match (message, &upstream.cancel) {
                (BackendMessage::BackendKeyData(key), Some(cancel)) => {
                    let (key, registered) =
                        self.shared.cancel.insert(key.process_id, long_keys, cancel.clone())?;
                    registration = Some(registered);
                    BackendMessage::BackendKeyData(key).encode(&mut out)?;
                }
                // Without a way to cancel, its key is not ours to give away.
                (BackendMessage::BackendKeyData(_), None) => {}
                (ready @ BackendMessage::ReadyForQuery(_), _) => {
                    ready.encode(&mut out)?;
                    break;
                }
                (other, _) => other.encode(&mut out)?,
            }
        }
        let counted = self.shared.clients.take(usize::MAX);
        client.write_all(&out).await?;
        client.flush().await?;
        let sign_in = SignIn { identity: upstream.identity.clone(), backend_pid: upstream.process_id };
        // Boxed: it is handed on, and each hand of an async function keeps room for it.
        Ok(Box::new(Session { upstream, first: said, registration, sign_in, client: counted, start }))
    }
}
