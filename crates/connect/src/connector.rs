//! The way in: a token, an address, TLS, the sign-in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_identity::{AccessToken, Credential, Refreshed, Resource, UnverifiedClaims};
use pgentra_wire::WireError;
use pgentra_wire::startup::{ProtocolVersion, StartupMessage};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::advice::AttemptedSignIn;
use crate::cancel::Canceller;
use crate::dial::{self, Watch};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::handshake;
use crate::libpq::LibpqEnvironment;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::signed_in::{SignedIn, Timings};
use crate::stages::Secured;
use crate::target::{self, HostSpec, Target};
use crate::tls;
use crate::tls_info::TlsInfo;
use crate::token_state::{TokenIdentity, TokenState};
use pgentra_wire::session_attrs::SessionAttrs;

/// Opens sessions to one target with tokens of one credential. Share it: TLS sessions are resumed between connections,
/// and the credential keeps the token; the connector itself keeps none.
#[derive(Debug, Clone)]
pub struct Connector {
    target: Arc<Target>,
    credential: Credential,
    resource: Resource,
    tls: Arc<ClientConfig>,
    /// `None` where the target leaves the role open.
    startup: Option<StartupMessage>,
}

/// Start-up message and token of a sign-in.
#[derive(Clone, Copy)]
pub(crate) struct SignInAttempt<'a> {
    startup: &'a StartupMessage,
    token: &'a AccessToken,
}

impl Connector {
    /// A connector. It opens no connection and requests no token yet.
    ///
    /// # Errors
    /// A target that TLS cannot be set up for, or with a value that does not fit into a start-up packet.
    pub fn new(
        target: Target,
        credential: Credential,
        resource: Resource,
    ) -> Result<Connector, ConnectError> {
        let tls = tls::client_config(target.ssl_mode(), target.roots())?;
        let startup = start_up(&target)?;
        Ok(Connector { target: Arc::new(target), credential, resource, tls, startup })
    }

    /// The resolved target: hosts, role, database and TLS settings.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The same connector for another database of the server. It shares the credential, its tokens, and TLS sessions.
    ///
    /// # Errors
    /// A name that does not fit into a start-up packet.
    pub fn with_database(&self, database: &str) -> Result<Connector, ConnectError> {
        let target = Target::clone(&self.target).with_database(database);
        let startup = start_up(&target)?;
        Ok(Connector { target: Arc::new(target), startup, ..self.clone() })
    }

    /// The same connector for servers of another kind. It shares the credential, its tokens, and TLS sessions.
    #[must_use]
    pub fn with_session_attrs(&self, attrs: SessionAttrs) -> Connector {
        let target = Target::clone(&self.target).with_session_attrs(attrs);
        Connector { target: Arc::new(target), ..self.clone() }
    }

    /// A session with the first host that is wanted.
    ///
    /// A token is taken from the credential for each call. Where the server refuses it and an out-of-date token can be
    /// the reason ([`Refusal::stale_token_explains`]), a newer one is asked for once and the sign-in tried once more.
    /// As in libpq, a name that does not resolve, an address that does not answer in time, and a server that accepts no
    /// connections now (57P03) lead on to the next host; a failure of TLS or another refusal does not, so that a token is
    /// never sent to one server after the other. With [`Target::session_attrs`] a session with a server of another kind is
    /// closed, and the search goes on. Hosts are tried in order, or in a random one
    /// ([`Target::load_balance_hosts`]). The addresses of one name are dialled a quarter of a second apart, and the first
    /// that answers is the one (RFC 8305); where it leads on, the name's other addresses come before the next host.
    ///
    /// Bounded by the credential's time limit, and [`Target::connect_timeout`] for each address. Dropping the future
    /// closes the connection.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`]. The error of several hosts names each that was tried.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        Session::resume(self.open(self.startup()?).await?).await
    }

    /// The stream of a session with the caller's own start-up message: for a proxy that relays it. The role, the database and every
    /// other parameter are those of `startup`; the rest is as in [`Connector::connect`].
    ///
    /// # Errors
    /// See [`ConnectErrorKind`].
    pub async fn open(&self, startup: &StartupMessage) -> Result<SignedIn, ConnectError> {
        self.open_among(startup, &self.host_order()).await
    }

    /// The order in which the hosts are tried for one session: indexes of [`Target::endpoints`].
    pub fn host_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.target.endpoints().len()).collect();
        self.target.load_balance_hosts().arrange(&mut order);
        order
    }

    /// As [`Connector::open`], with these hosts alone, in this order: indexes of [`Target::endpoints`]. For a proxy that
    /// knows of each host whether it is up.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`].
    pub async fn open_among(
        &self,
        startup: &StartupMessage,
        order: &[usize],
    ) -> Result<SignedIn, ConnectError> {
        let began = Instant::now();
        let token = self.token().await?;
        let waited = began.elapsed();
        let refused = match self.reach(SignInAttempt { startup, token: &token }, order).await {
            Ok(signed_in) => return Ok(signed_in.waited_for_token(waited)),
            Err(error) if is_stale(&error) => error,
            Err(error) => return Err(error),
        };
        let began = Instant::now();
        let newer = self.newer(&token, refused).await?;
        let waited = waited + began.elapsed();
        let reached = self.reach(SignInAttempt { startup, token: &newer }, order).await?;
        Ok(reached.waited_for_token(waited))
    }

    /// How the token is doing and whose it is. Reading it has a due refresh started, as using it does.
    pub fn token_state(&self) -> TokenState {
        TokenState::of(&self.credential, &self.resource)
    }

    /// Waits until the cache holds a token that is valid for a sign-in.
    ///
    /// Cancel-safe: dropping the future abandons the wait, not the request.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Token`].
    pub async fn token_ready(&self) -> Result<(), ConnectError> {
        self.token().await.map(drop)
    }

    /// The first stage of [`Connector::connect`]: the addresses of an endpoint, as the resolver orders them. For
    /// diagnostics that show at which stage a connection fails, and with what error.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Dns`].
    pub async fn resolve(&self, endpoint: &HostSpec) -> Result<Vec<SocketAddr>, ConnectError> {
        dial::addresses(endpoint, self.target.connect_timeout()).await
    }

    /// The second stage: a TCP connection, within [`Target::connect_timeout`].
    ///
    /// # Errors
    /// [`ConnectErrorKind::Tcp`] and [`ConnectErrorKind::Timeout`].
    pub async fn dial(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        dial::dial(address, Watch::of(&self.target), self.target.connect_timeout()).await
    }

    /// The third stage: TLS with `host`, whose certificate and name are verified when this returns. Nothing about role,
    /// database or token has been sent then.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Tls`], [`ConnectErrorKind::Timeout`] and [`ConnectErrorKind::Protocol`].
    pub async fn secure<S>(&self, stream: S, host: &str) -> Result<Secured<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.secure_until(stream, host, Instant::now() + self.target.connect_timeout()).await
    }

    /// The last stage: the sign-in with this token, once, with no second try.
    ///
    /// # Errors
    /// [`ConnectErrorKind::Refused`], [`ConnectErrorKind::Timeout`] and [`ConnectErrorKind::Protocol`].
    pub async fn sign_in<S>(&self, secured: Secured<S>, token: &AccessToken) -> Result<Session, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let attempt = SignInAttempt { startup: self.startup()?, token };
        let deadline = Instant::now() + self.target.connect_timeout();
        Session::resume(self.sign_in_until(secured, attempt, deadline).await?).await
    }

    /// A session over a stream that the caller opened to `host`: TLS and sign-in as in [`Connector::connect`], once,
    /// with no second try.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`].
    pub async fn connect_over<S>(&self, stream: S, host: &str) -> Result<Session, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let startup = self.startup()?;
        let token = self.token().await?;
        let deadline = Instant::now() + self.target.connect_timeout();
        Session::resume(self.enter(stream, host, SignInAttempt { startup, token: &token }, deadline).await?)
            .await
    }

    /// The environment with which a libpq program (psql, pg_dump, …) makes the same connection, with a token as its
    /// password. Give it to that program alone: see [`LibpqEnvironment::apply`].
    ///
    /// # Errors
    /// No token; trusted authorities that are in no file, which is where libpq looks.
    pub async fn libpq_environment(&self) -> Result<LibpqEnvironment, ConnectError> {
        self.startup()?;
        LibpqEnvironment::new(&self.target, self.token().await?)
    }

    /// The time of day by the credential's clock, to compare with [`SignedIn::token_expires_on`].
    pub fn now(&self) -> SystemTime {
        self.credential.now()
    }

    pub(crate) async fn token(&self) -> Result<AccessToken, ConnectError> {
        self.credential.token(&self.resource).await.map_err(ConnectError::token)
    }

    /// Another token than the refused one; the refusal, if there is none.
    pub(crate) async fn newer(
        &self,
        token: &AccessToken,
        refused: ConnectError,
    ) -> Result<AccessToken, ConnectError> {
        tracing::info!(error = %refused, "the server refused the token; asking for a newer one");
        match self.credential.refresh(&self.resource, token).await {
            Ok(Refreshed::New(token)) => Ok(token),
            Ok(Refreshed::Same(_)) => Err(refused.with_same_token()),
            Err(error) => {
                // The refusal is returned, not this error: its hint names what to change on the server.
                tracing::warn!(%error, "cannot get a newer token");
                Err(refused)
            }
        }
    }

    fn startup(&self) -> Result<&StartupMessage, ConnectError> {
        self.startup.as_ref().ok_or_else(target::no_role)
    }

    pub(crate) async fn enter<S>(
        &self,
        stream: S,
        host: &str,
        attempt: SignInAttempt<'_>,
        deadline: Instant,
    ) -> Result<SignedIn<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let secured = self.secure_until(stream, host, deadline).await?;
        self.sign_in_until(secured, attempt, deadline).await
    }

    async fn secure_until<S>(
        &self,
        stream: S,
        host: &str,
        deadline: Instant,
    ) -> Result<Secured<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.target.connect_timeout();
        let began = Instant::now();
        let secured = tls::secure(stream, host, self.target.ssl_negotiation(), &self.tls);
        let stream =
            timeout_at(deadline, secured).await.map_err(|_| too_slow(host, limit, "the TLS handshake"))??;
        let info = TlsInfo::of(stream.agreed());
        tracing::debug!(host, tls = %info, "server certificate verified");
        Ok(Secured { stream, host: host.to_owned(), tls: info, took: began.elapsed() })
    }

    async fn sign_in_until<S>(
        &self,
        secured: Secured<S>,
        SignInAttempt { startup, token }: SignInAttempt<'_>,
        deadline: Instant,
    ) -> Result<SignedIn<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.target.connect_timeout();
        let began = Instant::now();
        let Secured { mut stream, host, tls, took } = secured;
        let claims = UnverifiedClaims::of(token);
        let (role, database) =
            (String::from_utf8_lossy(startup.user()), String::from_utf8_lossy(startup.database()));
        let (role, database, claims) = (&*role, &*database, claims.as_ref());
        let sign_in = AttemptedSignIn { role, database, token: token.expose_secret(), claims };
        let signed_in = handshake::sign_in(&mut stream, startup, &sign_in);
        let ready =
            timeout_at(deadline, signed_in).await.map_err(|_| too_slow(&host, limit, "the sign-in"))??;
        let canceller =
            ready.key.clone().map(|key| Canceller::new(&self.target, Arc::clone(&self.tls), &host, key));
        let identity = claims.map(TokenIdentity::of);
        let timings = Timings { tls: took, sign_in: began.elapsed(), ..Timings::default() };
        let token_expires_on = token.expires_on();
        Ok(SignedIn {
            stream,
            ready,
            tls,
            host: None,
            address: None,
            state: None,
            canceller,
            token_expires_on,
            identity,
            timings,
        })
    }
}

pub(crate) fn is_stale(error: &ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::Refused(refusal) if Refusal::stale_token_explains(refusal))
}

fn too_slow(host: &str, limit: Duration, what: &str) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Timeout, format!("{what} with {host} was not done within {limit:?}"))
        .hinting("give it more time with connect_timeout; a server that is overloaded, or no PostgreSQL, answers like this")
}

fn start_up(target: &Target) -> Result<Option<StartupMessage>, ConnectError> {
    startup(target).map_err(|error| {
        ConnectError::config("role, database and options do not fit into a start-up packet").because(error)
    })
}

fn startup(target: &Target) -> Result<Option<StartupMessage>, WireError> {
    if target.user().is_empty() {
        return Ok(None);
    }
    let mut startup = StartupMessage::new(ProtocolVersion::V3_0, target.user())?
        .with("database", target.database())?
        .with("client_encoding", "UTF8")?;
    let optional = [("application_name", target.application_name()), ("options", target.options())];
    for (name, value) in optional {
        if let Some(value) = value {
            startup = startup.with(name, value)?;
        }
    }
    Ok(Some(startup))
}
