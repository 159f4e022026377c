//! The sign-in of a client, from its first byte to its session.

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
    /// Bytes that the server sent after its ReadyForQuery.
    pub(crate) first: BytesMut,
    /// Keeps the client's cancel key valid.
    pub(crate) registration: Option<Registration<Cancel>>,
    pub(crate) sign_in: SignIn,
    /// Counts the client while it has the session.
    pub(crate) client: Option<SessionPermit>,
    /// The start-up under which the session can be pooled; `None`: it cannot.
    pub(crate) start: Option<StartupMessage>,
}

impl AuthProxy {
    /// Runs the sign-in up to ReadyForQuery. `None`: the connection was a cancel request and is
    /// done.
    ///
    /// Not cancel-safe; after a drop, the client can still get an error.
    pub(crate) async fn enter<S: Socket>(
        &self,
        client: &mut Client<S>,
        record: &mut ConnectionRecord,
        seat: &Seat,
    ) -> Result<Option<Box<Session>>, LoginError> {
        let client_auth = self.client_auth();
        // Checked first, so that a user without access takes no resources from the others.
        if !client.is_trusted(&client_auth.uids) {
            return Err(refusal::peer_uid_denied(client.address()).into());
        }
        let first = Instant::now() + self.limits.first_packet.min(self.limits.start_up);
        seat.arrive(client, first).await?;
        // Boxed to keep the task of a silent connection small.
        Box::pin(self.sign_in(client, record, (seat, &client_auth), first)).await
    }

    async fn sign_in<S: Socket>(
        &self,
        client: &mut Client<S>,
        record: &mut ConnectionRecord,
        (seat, client_auth): (&Seat, &ClientAuth),
        first: Instant,
    ) -> Result<Option<Box<Session>>, LoginError> {
        let opening = seat.ask(self.authenticate_client(client, client_auth, record, first)).await?;
        seat.admitted();
        let start = match opening {
            Opening::Startup(start) => start,
            Opening::Cancel(request) => {
                self.forward_cancel(&request).await;
                return Ok(None);
            }
        };
        let upstream = self.upstream_start(&start, client_auth)?;
        record.asks_for(&upstream);
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

    /// A request with an unknown key is ignored, as in PostgreSQL: the answer does not show whether
    /// a key exists.
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
                tracing::warn!(%error, "a cancel request could not be forwarded");
                Cancelled::Failed
            }
        });
    }

    /// The start-up for the server: the client's own, with the target's role and database. Protocol
    /// options were answered to the client and are not forwarded.
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

    /// The role or database to use, where the target may have set one.
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

    /// Forwards the server's messages up to ReadyForQuery, with a cancel key of the proxy.
    async fn welcome<S: Socket>(
        &self,
        client: &mut Client<S>,
        upstream: Upstream,
        long_keys: bool,
        start: Option<StartupMessage>,
    ) -> Result<Box<Session>, LoginError> {
        let mut greeting = BytesMut::from(&upstream.greeting[..]);
        let mut out = BytesMut::with_capacity(greeting.len() + 64);
        let mut registration = None;
        while let Some(message) = BackendMessage::decode(&mut greeting)? {
            match (message, &upstream.cancel) {
                (BackendMessage::BackendKeyData(key), Some(cancel)) => {
                    let (key, registered) =
                        self.shared.cancel.insert(key.process_id, long_keys, cancel.clone())?;
                    registration = Some(registered);
                    BackendMessage::BackendKeyData(key).encode(&mut out)?;
                }
                // The server cannot be asked to cancel, so the client gets no key.
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
        // Boxed: each async function that it is passed through would reserve space for it.
        Ok(Box::new(Session { upstream, first: greeting, registration, sign_in, client: counted, start }))
    }
}
