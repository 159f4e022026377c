//! The log-in of a client, from its start-up to its session.

use std::sync::Arc;

use bytes::BytesMut;
use pgentra_session::attempts::Attempts;
use pgentra_session::auth_message::AuthMessage;
use pgentra_session::cancel::Registration;
use pgentra_session::client::{Client, ClientOrigin, server_start};
use pgentra_session::greeting::Greeting;
use pgentra_session::login_error::{self, LoginError, chain, sqlstate};
use pgentra_session::starting::Seat;
use pgentra_verify::{Principal, Rejection, Verifier};
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::fields::Fields;
use pgentra_wire::startup::StartupMessage;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_postgres::types::Type;

use super::ask_method::{AUTH_SETTING, AskMethod};
use super::role_mapping::RoleMapping;
use super::single::{self, Member};
use super::token_request::{self, TokenAnswer};
use super::{Flavour, Gateway, RoleSource, Unmapped, UpstreamMethod, refusal, setting, startup_option};
use crate::attempt::ClientRecord;
use crate::control::{ControlError, column};
use crate::expiry::SessionExpiry;
use crate::observed::LoginCheck;
use crate::telemetry::{of, result, with};
use crate::upstream::UpstreamAddress;
use crate::upstream_login::{UpstreamLogin, UpstreamLoginError, method};
use crate::upstream_stream::UpstreamStream;

/// Where a session is opened, and with which start-up.
#[derive(Clone, Copy)]
pub(crate) struct ServerOpening<'a> {
    pub(crate) address: &'a UpstreamAddress,
    pub(crate) start: &'a StartupMessage,
}

/// A session that is ready.
pub(crate) struct ServerSession {
    pub(crate) server: UpstreamStream,
    /// Bytes that the server has sent already.
    pub(crate) first: BytesMut,
    pub(crate) registration: Registration,
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Gateway {
    /// Authenticates a client and opens its session, up to ReadyForQuery.
    pub(crate) async fn authenticate(
        self: &Arc<Self>,
        client: &mut Client,
        seat: &Seat,
        start: StartupMessage,
        attempt: &mut ClientRecord,
    ) -> Result<ServerSession, LoginError> {
        let (start, wanted) = startup_option::take(start, AUTH_SETTING)?;
        let how = AskMethod::wanted(wanted.as_deref(), self.config.oauth.default)?;
        let role = self.role_name(&start);
        let upstream = self.upstream_start(&start, &role)?;
        attempt.check = LoginCheck::Role;
        // Only an authenticated client takes a permit, so that other clients cannot use up the
        // permits.
        let (permit, server) = match seat.ask(client.while_present(self.claim(&role))).await? {
            None if self.config.unmapped == Unmapped::Refuse => {
                return Err(refusal::not_mapped(&String::from_utf8_lossy(&role)).into());
            }
            None => {
                let is_console = client.while_present(self.is_console(&role, &upstream)).await?;
                let (address, proof) = self.proof_of_password(is_console, &upstream)?;
                let mut server = seat.ask(self.pass_through(client, address, &proof)).await?;
                seat.admitted();
                attempt.check = LoginCheck::Server;
                let permit = self.place().await?;
                if is_console {
                    // Only then is it known that the role may log in.
                    let ready = async { server.wait_until_ready().await.map_err(|error| self.failed(error)) };
                    client.while_present(ready).await?;
                    server = client.while_present(self.open_console(&upstream)).await?;
                }
                (permit, server)
            }
            Some((role, claim)) => {
                let asked = self.ask_for_token(client, role, how, &mut attempt.check);
                let principal = seat.ask(asked).await?;
                attempt.principal = Some(principal.clone());
                seat.admitted();
                attempt.check = LoginCheck::Principal;
                let passwords = client.while_present(self.authorize(&claim, role, &principal)).await?;
                attempt.check = LoginCheck::Server;
                let opened = async {
                    if self.is_console(role.as_bytes(), &upstream).await? {
                        let permit = self.place().await?;
                        let may_log_in = self.may_log_in(role, &claim, &passwords, &upstream).await?;
                        return Ok(match may_log_in {
                            true => Some((self.open_console(&upstream).await?, permit)),
                            false => None,
                        });
                    }
                    self.session_for(role, &claim, &passwords, &upstream).await
                };
                let Some((server, permit)) = client.while_present(opened).await? else {
                    tracing::warn!(role, oid = %principal.object_id(), "the role's password is no id of the token");
                    attempt.check = LoginCheck::Principal;
                    return Err(Member::mismatch(role, &principal).into());
                };
                audit(role, &upstream, &principal, client);
                (permit, server)
            }
        };
        // Only now: the client must not take a refusal of the server for a failure in its session.
        client.send(&BackendMessage::Authentication(Authentication::Ok)).await?;
        self.welcome(client, server, Greeting::new(&start), permit).await
    }

    /// Judges a token without a client.
    pub(crate) async fn would_sign_in(
        &self,
        role: &str,
        token: &str,
    ) -> Result<Option<Principal>, LoginError> {
        let Ok(server) = self.suitable().await else {
            return Err(refusal::no_server_fits(self.config.target_session_attrs).into());
        };
        let Some((role, claim)) = server.claim(role.as_bytes()).await? else { return Ok(None) };
        let principal = server.verify(role, token, &mut LoginCheck::Format).await?;
        server.authorize(&claim, role, &principal).await?;
        Ok(Some(principal))
    }

    fn role_name(&self, start: &StartupMessage) -> Vec<u8> {
        match self.config.roles {
            RoleSource::Database(Flavour::Single) => {
                single::role_name(start.user(), &self.config.server_name).to_vec()
            }
            _ => start.user().to_vec(),
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
        match self.config.roles {
            // So that SHOW and RESET know the setting before a SET.
            RoleSource::Database(Flavour::Single) => {
                Ok(upstream.with(setting::KNOWN, start.get(setting::TYPED).unwrap_or(b"on"))?)
            }
            _ => Ok(upstream),
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
        let (name, telemetry) = (&self.config.name, &self.config.telemetry);
        match self.find(role).await {
            Ok(claim) => {
                telemetry.mapping(name, None);
                Ok(claim.map(|claim| (role, claim)))
            }
            Err(error) => {
                let fields = match error.is_of_the_mapping() {
                    true => refusal::mapping_unreadable(),
                    false => refusal::unreachable(),
                };
                let error = chain(&error);
                tracing::error!(server = name, error, "the mapping of roles cannot be read");
                telemetry.mapping(name, Some(format!("the mapping of roles cannot be read: {error}")));
                Err(fields.into())
            }
        }
    }

    /// Asks for the token and verifies it. Its bytes are overwritten right after.
    async fn ask_for_token(
        &self,
        client: &mut Client,
        role: &str,
        how: AskMethod,
        check: &mut LoginCheck,
    ) -> Result<Principal, LoginError> {
        let who = (client.origin(), role.as_bytes());
        *check = LoginCheck::Attempts;
        self.attempts.check(&who).map_err(refusal::too_many_attempts)?;
        *check = LoginCheck::Format;
        let fields = match token_request::ask(client, how, role).await? {
            TokenAnswer::Refused(fields) => fields,
            TokenAnswer::Token(token) => {
                *check = LoginCheck::Attempts;
                client.while_present(pause(&self.attempts, &who)).await?;
                *check = LoginCheck::Format;
                // A refusal is a value here: it is told in the words of the mechanism.
                let judged = async { Ok(self.verify(role, token.expose_secret(), check).await) };
                match client.while_present(judged).await? {
                    Ok(principal) => return Ok(principal),
                    Err(LoginError::Rejected(fields)) => {
                        // Anything but class 28 says nothing of the token.
                        if fields.sqlstate().starts_with("28") {
                            self.attempts.count_wrong(&who);
                        }
                        fields
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        token_request::refuse(client, how, &self.config.oauth).await?;
        Err(fields.into())
    }

    /// Verifies a token by the tenant that it belongs to. `check` becomes the one that failed.
    async fn verify(&self, role: &str, token: &str, check: &mut LoginCheck) -> Result<Principal, LoginError> {
        let (name, now) = (&self.config.name, (self.config.clock)());
        let tokens = &self.config.telemetry.counts().tokens;
        let mut refused = None;
        for verifier in &self.config.verifiers {
            let verifier: &Verifier = verifier;
            let rejection = match verifier.verify(token, now).await {
                Ok(principal) => {
                    // The leeway is for a login; the session would end at once.
                    let is_over = principal.expires_on() <= now;
                    if !is_over || !matches!(self.config.expiry, SessionExpiry::End(_)) {
                        tokens.get_or_create(&with(name, "result", "verified")).inc();
                        return Ok(principal);
                    }
                    Rejection::Expired
                }
                Err(rejection) => rejection,
            };
            let is_foreign = matches!(
                rejection,
                Rejection::Issuer | Rejection::Tenant | Rejection::UnknownKey | Rejection::Algorithm
            );
            refused = Some((verifier, rejection));
            if !is_foreign {
                break;
            }
        }
        let Some((verifier, rejection)) = refused else { return Err(refusal::broken().into()) };
        *check = LoginCheck::of(&rejection);
        tokens.get_or_create(&with(name, "result", result(&rejection))).inc();
        tracing::warn!(role, error = chain(&rejection), "an access token was refused");
        Err(refusal::rejected(&rejection, verifier.policy()).into())
    }

    /// Logs in to the server as the role, with the first of these passwords that is right; without
    /// any, with the gateway's own. `None`: none of them is right.
    pub(crate) async fn open_as(
        &self,
        role: &str,
        claim: &RoleMapping,
        passwords: &[SecretString],
        upstream: ServerOpening<'_>,
    ) -> Result<Option<UpstreamLogin<UpstreamStream>>, LoginError> {
        match self.config.method {
            UpstreamMethod::Password | UpstreamMethod::SharedPassword => {}
            _ => return self.be_trusted(role, upstream).await.map(Some),
        }
        if passwords.is_empty() {
            return self.open_with_own_password(role, claim, upstream).await.map(Some);
        }
        // On Single Server the password is the id that the role was created with: the client id or the object id.
        for password in passwords {
            if let Some(server) = self.try_password(role, upstream, password).await? {
                return Ok(Some(server));
            }
        }
        Ok(None)
    }

    /// Logs in with the gateway's own password, which is set if the role has another one: the
    /// mapping authorizes the login.
    async fn open_with_own_password(
        &self,
        role: &str,
        claim: &RoleMapping,
        upstream: ServerOpening<'_>,
    ) -> Result<UpstreamLogin<UpstreamStream>, LoginError> {
        let password = self.own_password().await?;
        if !claim.is_adopted() {
            self.take_over_password(role).await?;
        }
        if let Some(server) = self.try_password(role, upstream, &password).await? {
            return Ok(server);
        }
        // Only now is it known that a role of the rules has another password.
        if matches!(claim, RoleMapping::Rules(_)) {
            self.take_over_password(role).await?;
            if let Some(server) = self.try_password(role, upstream, &password).await? {
                return Ok(server);
            }
        }
        tracing::error!(
            role,
            "the server does not take the gateway's password: look at the role's VALID UNTIL"
        );
        self.count_failure();
        Err(refusal::broken().into())
    }

    async fn own_password(&self) -> Result<SecretString, LoginError> {
        if matches!(self.config.method, UpstreamMethod::SharedPassword) {
            return Ok(self.config.service.password.clone());
        }
        // It is made once, and stays when the server is prepared again.
        let read = async || {
            let rows = self.control.query("SELECT password FROM pgentra.gateway", &[]).await?;
            let row = rows.first().ok_or(ControlError::Mapping)?;
            Ok::<SecretString, ControlError>(column::<String>(row, 0)?.into())
        };
        self.own_password.get_or_try_init(read).await.cloned().map_err(|error| {
            tracing::error!(error = chain(&error), "the gateway's password cannot be read");
            refusal::unreachable().into()
        })
    }

    /// Sets the gateway's password as the role's password.
    async fn take_over_password(&self, role: &str) -> Result<(), LoginError> {
        let sql = match self.config.method {
            UpstreamMethod::SharedPassword => "SELECT pgentra.adopt_principal($1)",
            _ => "SELECT pgentra.adopt($1)",
        };
        match self.control.query(sql, &[(&role, Type::TEXT)]).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(role, error = chain(&error), "a role's password cannot be set");
                self.count_failure();
                Err(refusal::broken().into())
            }
        }
    }

    /// Logs in with one password. `None`: the password is wrong. Any other refusal of the server
    /// goes to the client.
    pub(crate) async fn try_password(
        &self,
        role: &str,
        upstream: ServerOpening<'_>,
        password: &SecretString,
    ) -> Result<Option<UpstreamLogin<UpstreamStream>>, LoginError> {
        let mut server = self.start(role, upstream).await?;
        match server.log_in(password.expose_secret().as_bytes()).await {
            Ok(()) => Ok(Some(server)),
            Err(UpstreamLoginError::Refused(fields)) if fields.sqlstate() == sqlstate::INVALID_PASSWORD => {
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Logs in at a server that knows the gateway by its user or its certificate.
    async fn be_trusted(
        &self,
        role: &str,
        upstream: ServerOpening<'_>,
    ) -> Result<UpstreamLogin<UpstreamStream>, LoginError> {
        let mut server = self.start(role, upstream).await?;
        match server.be_trusted().await {
            Ok(()) => Ok(server),
            // pg_hba.conf, pg_ident.conf or ssl_ca_file do not fit, or the role may not log in: what the client asked for
            // is not the cause.
            Err(UpstreamLoginError::Refused(fields)) if fields.sqlstate().starts_with("28") => {
                tracing::error!(
                    role,
                    reason = &*fields.message(),
                    "the server does not let the gateway in as a role"
                );
                self.count_failure();
                Err(refusal::not_let_in().into())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn start(
        &self,
        role: &str,
        upstream: ServerOpening<'_>,
    ) -> Result<UpstreamLogin<UpstreamStream>, LoginError> {
        let ServerOpening { address, start } = upstream;
        address.start(&self.config.method, role, start).await.map_err(|error| self.failed(error))
    }

    /// Lets the client authenticate at the server itself, by SCRAM-SHA-256. Each such client uses
    /// one server connection, so their number is limited, and each answer has the time limit of a
    /// first packet.
    async fn pass_through(
        &self,
        client: &mut Client,
        address: &UpstreamAddress,
        upstream: &StartupMessage,
    ) -> Result<UpstreamLogin<UpstreamStream>, LoginError> {
        let limit = self.config.limits.first_packet;
        // The semaphore is never closed.
        let begun = async {
            let passing = self.passing.acquire().await;
            // Without a certificate: the client has to prove who it is.
            let server = address.start(&UpstreamMethod::Password, "", upstream).await;
            Ok((passing, server.map_err(|error| self.failed(error))?))
        };
        let (_passing, mut server) = client.while_present(begun).await?;
        let mut was_asked = false;
        loop {
            let message = client
                .while_present(async { server.read().await.map_err(|error| self.failed(error)) })
                .await?;
            match &message {
                BackendMessage::Authentication(Authentication::Ok) if was_asked => return Ok(server),
                // The server trusts the gateway, and the client has proven nothing.
                BackendMessage::Authentication(Authentication::Ok) => {
                    let role = &*String::from_utf8_lossy(upstream.user());
                    tracing::error!(
                        role,
                        "the server lets the gateway in as a role that is not mapped: pg_hba.conf has to ask for scram-sha-256"
                    );
                    self.count_failure();
                    return Err(refusal::not_let_in().into());
                }
                BackendMessage::Authentication(
                    Authentication::Sasl(_) | Authentication::SaslContinue(_) | Authentication::SaslFinal(_),
                ) => was_asked = true,
                // The answer would show the password, or what stands for it, to the gateway.
                BackendMessage::Authentication(other) => {
                    let needs = "pg_hba.conf has to ask for scram-sha-256 here";
                    return Err(self.failed(UpstreamLoginError::Method(method(other), needs)));
                }
                _ => {}
            }
            client.send(&message).await?;
            if server.is_asked() {
                let answer = timeout(limit, AuthMessage::read(client)).await;
                let answer = answer.unwrap_or_else(|_| Err(login_error::login_timeout().into()))?;
                server.answer(answer.body()).await.map_err(|error| self.failed(error))?;
            }
        }
    }

    /// Forwards the server's messages up to ReadyForQuery, with a cancel key of the gateway.
    async fn welcome(
        &self,
        client: &mut Client,
        mut server: UpstreamLogin<UpstreamStream>,
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
                    return Err(self.failed(error));
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

    /// The server's own error goes to the client; any other failure goes to the log.
    pub(crate) fn failed(&self, error: UpstreamLoginError) -> LoginError {
        let server = &self.config.name;
        let fields: Fields = match error {
            UpstreamLoginError::Refused(fields) => fields,
            error @ UpstreamLoginError::Io(_) => {
                tracing::error!(server, error = chain(&error), "PostgreSQL cannot be reached");
                self.count_failure();
                refusal::unreachable()
            }
            error => {
                tracing::error!(server, error = chain(&error), "PostgreSQL did not open the session");
                self.count_failure();
                refusal::broken()
            }
        };
        LoginError::Rejected(fields)
    }

    fn count_failure(&self) {
        self.config.telemetry.counts().upstream_failures.get_or_create(&of(&self.config.name)).inc();
    }
}

/// Waits where tokens for the role were refused from the same address.
async fn pause(attempts: &Attempts, who: &(ClientOrigin, &[u8])) -> Result<(), LoginError> {
    attempts.pause(who).await.map_err(|wait| refusal::too_many_attempts(wait).into())
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
