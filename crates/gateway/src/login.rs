//! The log-in of a client, from its connection to its session.

use bytes::BytesMut;
use pgentra_verify::Principal;
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::fields::Fields;
use pgentra_wire::startup::StartupMessage;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::ask_method::{AUTH_SETTING, AskMethod};
use super::flexible::Mapping;
use super::single::{self, Member};
use super::token_request::{self, TokenAnswer};
use super::{Flavour, Gateway, refusal, setting, startup_option};
use crate::upstream_login::{UpstreamLogin, UpstreamLoginError};
use pgentra_session::attempts::Attempt;
use pgentra_session::auth_message::AuthMessage;
use pgentra_session::cancel::Registration;
use pgentra_session::client::{Client, Opening, server_start};
use pgentra_session::greeting::Greeting;
use pgentra_session::login_error::{self, LoginError, chain, sqlstate};
use pgentra_session::starting::Seat;

/// A session that is ready.
pub(crate) struct ServerSession {
    pub(crate) server: UnixStream,
    /// Bytes that the server has sent already.
    pub(crate) first: BytesMut,
    pub(crate) registration: Registration,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// The record that maps a role to Entra, in the form of the flavour.
pub(crate) enum RoleMapping {
    Flexible(Mapping),
    Single(Member),
}

impl Gateway {
    /// Runs the log-in up to ReadyForQuery. `None`: the connection was a cancel request and is
    /// done.
    ///
    /// Not cancel-safe; after a drop, the client can still get an error.
    pub(crate) async fn log_in(
        &self,
        client: &mut Client,
        seat: &Seat,
    ) -> Result<Option<ServerSession>, LoginError> {
        let login = async {
            let first = self.config.limits.first_packet_deadline();
            seat.arrive(client, first).await?;
            // Boxed to keep the task of a silent connection small.
            Box::pin(self.authenticate(client, seat, first)).await
        };
        timeout(self.config.limits.start_up, login)
            .await
            .unwrap_or_else(|_| Err(login_error::login_timeout().into()))
    }

    async fn authenticate(
        &self,
        client: &mut Client,
        seat: &Seat,
        first: Instant,
    ) -> Result<Option<ServerSession>, LoginError> {
        let start = match seat.ask(client.open(Some(&self.tls), first)).await? {
            Opening::Startup(start) => start,
            Opening::Cancel(request) => {
                seat.admitted();
                let pass = async |request| self.config.upstream.cancel(&request).await;
                self.cancel.forward_cancel(&request, pass).await;
                return Ok(None);
            }
        };
        // PostgreSQL's order: a start-up without a user is refused before anything is looked up.
        if start.user().is_empty() {
            return Err(login_error::no_user().into());
        }
        // A token or password sent in clear text is lost even if the sign-in fails, so the request for it is never sent.
        if !client.is_encrypted() {
            let address = client.address().ip().to_canonical();
            return Err(refusal::no_encryption(address, start.user(), start.database()).into());
        }
        client.negotiate(&start).await?;
        let (start, wanted) = startup_option::take(start, AUTH_SETTING)?;
        let how = AskMethod::wanted(wanted.as_deref(), self.config.oauth.default)?;
        let role = self.role_name(&start);
        let upstream = self.upstream_start(&start, &role)?;
        // Only an authenticated client takes a permit, so that other clients cannot use up the
        // permits.
        let (permit, server) = match seat.ask(client.while_present(self.claim(&role))).await? {
            None => {
                let server = seat.ask(self.pass_through(client, &upstream)).await?;
                seat.admitted();
                (self.take_place()?, server)
            }
            Some((role, claim)) => {
                let principal = seat.ask(self.ask_for_token(client, role, how)).await?;
                seat.admitted();
                let permit = self.take_place()?;
                let opened = self.open_as(role, &claim, &principal, &upstream);
                let server = client.while_present(opened).await?;
                audit(role, &upstream, &principal, client);
                (permit, server)
            }
        };
        // Only now: the client must not take a refusal of the server for a failure in its session.
        client.send(&BackendMessage::Authentication(Authentication::Ok)).await?;
        self.welcome(client, server, Greeting::new(&start), permit).await.map(Some)
    }

    fn take_place(&self) -> Result<OwnedSemaphorePermit, LoginError> {
        self.sessions.clone().try_acquire_owned().map_err(|_| login_error::too_many_clients().into())
    }

    fn role_name(&self, start: &StartupMessage) -> Vec<u8> {
        match self.config.flavour {
            Flavour::Flexible => start.user().to_vec(),
            Flavour::Single => single::role_name(start.user(), &self.config.server_name).to_vec(),
        }
    }

    /// The start-up for the server.
    fn upstream_start(&self, start: &StartupMessage, role: &[u8]) -> Result<StartupMessage, LoginError> {
        // Without a database the start-up means the one of the user's name, from which `@server`
        // may have been removed.
        let database = if start.database() == start.user() { role } else { start.database() };
        let upstream = server_start(start, role)?
            .without(|name| name == setting::TYPED.as_bytes())
            .with("database", database)?;
        match self.config.flavour {
            Flavour::Flexible => Ok(upstream),
            // So that SHOW and RESET know the setting before a SET.
            Flavour::Single => Ok(upstream.with(setting::KNOWN, start.get(setting::TYPED).unwrap_or(b"on"))?),
        }
    }

    /// The role's mapping; `None` if the role does not sign in with tokens.
    pub(crate) async fn claim<'a>(
        &self,
        role: &'a [u8],
    ) -> Result<Option<(&'a str, RoleMapping)>, LoginError> {
        // The functions that map roles accept only valid UTF-8.
        let Ok(role) = std::str::from_utf8(role) else {
            return Ok(None);
        };
        let found = match self.config.flavour {
            Flavour::Flexible => {
                Mapping::find(&self.control, role).await.map(|it| it.map(RoleMapping::Flexible))
            }
            Flavour::Single => Member::find(&self.control, role).await.map(|it| it.map(RoleMapping::Single)),
        };
        match found {
            Ok(claim) => Ok(claim.map(|claim| (role, claim))),
            Err(error) => {
                tracing::error!(error = chain(&error), "the mapping of roles cannot be read");
                Err(refusal::unreachable().into())
            }
        }
    }

    /// Asks for the token and verifies it. Its bytes are overwritten right after.
    async fn ask_for_token(
        &self,
        client: &mut Client,
        role: &str,
        how: AskMethod,
    ) -> Result<Principal, LoginError> {
        let who = (client.origin(), role.as_bytes());
        self.attempts.check(&who).map_err(refusal::too_many_attempts)?;
        let fields = match token_request::ask(client, how, role).await? {
            TokenAnswer::Refused(fields) => fields,
            TokenAnswer::Token(token) => {
                let turn = async {
                    self.attempts.turn(&who).await.map_err(|wait| refusal::too_many_attempts(wait).into())
                };
                let attempt: Attempt<'_> = client.while_present(turn).await?;
                // A refusal is a value here: it is told in the words of the mechanism.
                let judged = async { Ok(self.verify(role, token.expose_secret()).await) };
                match client.while_present(judged).await? {
                    Ok(principal) => return Ok(principal),
                    Err(fields) => {
                        // Anything but class 28 says nothing of the token.
                        if fields.sqlstate().starts_with("28") {
                            attempt.was_wrong();
                        }
                        fields
                    }
                }
            }
        };
        token_request::refuse(client, how, &self.config.oauth).await?;
        Err(fields.into())
    }

    /// Logs in to the server as the role, if the token may use the role.
    async fn open_as(
        &self,
        role: &str,
        claim: &RoleMapping,
        principal: &Principal,
        upstream: &StartupMessage,
    ) -> Result<UpstreamLogin<UnixStream>, LoginError> {
        let (authorized, is_adopted) = match claim {
            RoleMapping::Flexible(mapping) => (
                mapping.authorize(role, principal).map(|()| vec![mapping.password.clone()]),
                mapping.is_adopted,
            ),
            RoleMapping::Single(member) => (member.authorize(role, principal), member.is_adopted),
        };
        let passwords = authorized.inspect_err(|fields| {
            tracing::warn!(role, oid = %principal.object_id(), reason = &*fields.message(), "an access token does not fit the role");
        })?;
        // The gateway does not know this role's password yet. The mapping authorizes the login, so it may set one.
        if !is_adopted {
            self.take_over_password(role).await?;
        }
        // On Single Server the password is the id that the role was created with: the client id or the object id.
        for password in &passwords {
            if let Some(server) = self.try_password(upstream, password).await? {
                return Ok(server);
            }
        }
        match claim {
            // The password is known to be right, so the role cannot log in for another reason.
            RoleMapping::Flexible(_) => {
                tracing::error!(
                    role,
                    "the server does not take the gateway's password: look at the role's VALID UNTIL"
                );
                Err(refusal::broken().into())
            }
            RoleMapping::Single(_) => {
                tracing::warn!(role, oid = %principal.object_id(), "the role's password is no id of the token");
                Err(Member::mismatch(role, principal).into())
            }
        }
    }

    /// Sets the gateway's password as the role's password.
    async fn take_over_password(&self, role: &str) -> Result<(), LoginError> {
        match self.control.query("SELECT pgentra.adopt($1)", &[&role]).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(role, error = chain(&error), "a role's password cannot be set");
                Err(refusal::broken().into())
            }
        }
    }

    /// Logs in with one password. `None`: the password is wrong. Any other refusal of the server
    /// goes to the client.
    async fn try_password(
        &self,
        upstream: &StartupMessage,
        password: &SecretString,
    ) -> Result<Option<UpstreamLogin<UnixStream>>, LoginError> {
        let mut server = self.config.upstream.start(upstream).await.map_err(failed)?;
        match server.log_in(password.expose_secret().as_bytes()).await {
            Ok(()) => Ok(Some(server)),
            Err(UpstreamLoginError::Refused(fields)) if fields.sqlstate() == sqlstate::INVALID_PASSWORD => {
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Lets the client authenticate at the server itself. Each such client uses one server
    /// connection, so their number is limited, and each answer has the time limit of a first
    /// packet.
    async fn pass_through(
        &self,
        client: &mut Client,
        upstream: &StartupMessage,
    ) -> Result<UpstreamLogin<UnixStream>, LoginError> {
        let limit = self.config.limits.first_packet;
        // The semaphore is never closed.
        let begun = async {
            let passing = self.passing.acquire().await;
            Ok((passing, self.config.upstream.start(upstream).await.map_err(failed)?))
        };
        let (_passing, mut server) = client.while_present(begun).await?;
        loop {
            let message = client.while_present(async { server.read().await.map_err(failed) }).await?;
            if message == BackendMessage::Authentication(Authentication::Ok) {
                return Ok(server);
            }
            client.send(&message).await?;
            if server.is_asked() {
                let answer = timeout(limit, AuthMessage::read(client)).await;
                let answer = answer.unwrap_or_else(|_| Err(login_error::login_timeout().into()))?;
                server.answer(answer.body()).await.map_err(failed)?;
            }
        }
    }

    /// Forwards the server's messages up to ReadyForQuery, with a cancel key of the gateway.
    async fn welcome(
        &self,
        client: &mut Client,
        mut server: UpstreamLogin<UnixStream>,
        mut greeting: Greeting,
        permit: OwnedSemaphorePermit,
    ) -> Result<ServerSession, LoginError> {
        loop {
            let message = match client.while_present(async { Ok(server.read().await) }).await? {
                Ok(message) => message,
                Err(error) => {
                    if matches!(error, UpstreamLoginError::Refused(_)) {
                        // The client gets the notices before the error.
                        greeting.send(client).await?;
                    }
                    return Err(failed(error));
                }
            };
            match message {
                BackendMessage::BackendKeyData(key) => greeting.replace_key(key, &self.cancel)?,
                ready @ BackendMessage::ReadyForQuery(_) => {
                    greeting.add(&ready)?;
                    break;
                }
                other => greeting.add(&other)?,
            }
        }
        let Some(registration) = greeting.take_registration() else {
            tracing::error!("the server sent no cancel key");
            return Err(refusal::broken().into());
        };
        greeting.send(client).await?;
        let (server, first) = server.into_parts();
        Ok(ServerSession { server, first, registration, _permit: permit })
    }
}

/// Logs one line for the audit of sign-ins. Microsoft: "Audit logging in Azure Database for
/// PostgreSQL" defines the text and `UPN=`, `appid=`, `oid=`.
fn audit(role: &str, upstream: &StartupMessage, principal: &Principal, client: &Client) {
    let database = &*String::from_utf8_lossy(upstream.database());
    let (oid, address) = (principal.object_id(), client.address());
    match principal.kind() {
        pgentra_verify::SubjectKind::App => {
            let appid = principal.app_id().map(|id| id.to_string()).unwrap_or_default();
            tracing::info!(%oid, %appid, role, database, %address, "Microsoft Entra ID connection authorized");
        }
        _ => {
            let upn = principal.user_principal_name().unwrap_or_default();
            tracing::info!(%oid, UPN = %upn, role, database, %address, "Microsoft Entra ID connection authorized");
        }
    }
}

/// The server's own error goes to the client; any other failure goes to the log.
fn failed(error: UpstreamLoginError) -> LoginError {
    let fields: Fields = match error {
        UpstreamLoginError::Refused(fields) => fields,
        error @ UpstreamLoginError::Io(_) => {
            tracing::error!(error = chain(&error), "PostgreSQL cannot be reached");
            refusal::unreachable()
        }
        error => {
            tracing::error!(error = chain(&error), "PostgreSQL did not open the session");
            refusal::broken()
        }
    };
    LoginError::Rejected(fields)
}
