//! sqlx: a pool whose password is renewed before it expires.
//!
//! What differs from the other ways to connect, because sqlx opens its connections itself:
//!
//! - TLS is sqlx's. The server's certificate is verified for its name all the same. It must come from one of Mozilla's
//!   authorities, which sqlx has built in, or from one in the target's `sslrootcert`; the operating system's authorities
//!   are not asked, and `sslrootcert` adds to the built-in ones. `sslmode=verify-ca` is refused: any of them would do.
//! - A server that asks for MD5 or SCRAM is given a proof computed from the token, never the token.
//! - sqlx holds the token in memory that it does not overwrite, and its `PgConnectOptions` show it in their `Debug`.
//! - One host of any kind: a target with several, or with `target_session_attrs`, is refused. Neither `hostaddr` nor
//!   `sslnegotiation=direct`.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgentra_identity::{AccessToken, UnverifiedClaims};
use pgentra_wire::fields::{Fields, Severity};
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Error, Postgres};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::advice::AttemptedSignIn;
use crate::connector::{Connector, is_stale};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::handshake;
use crate::quote::url_value;
use crate::roots::RootSource;
use crate::target::{SslMode, SslNegotiation, Target};
use crate::tls;
use pgentra_wire::session_attrs::SessionAttrs;

/// How often the pool's token is compared with the credential's, which is cheap while both are the same. Azure's tokens
/// are valid for an hour or more, and the credential has the next token at least five minutes before the expiry.
const RENEWAL: Duration = Duration::from_secs(10);

/// A pool of sqlx that is given each new token as soon as there is one. Dropping it ends the renewal.
///
/// ```no_run
/// use pgentra_connect::{Connector, adapter::sqlx::Pool};
/// use sqlx::postgres::PgPoolOptions;
///
/// # async fn example(connector: Connector) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::connect(connector, PgPoolOptions::new().max_connections(10)).await?;
/// let version: String = sqlx::query_scalar("SELECT version()").fetch_one(pool.pool()).await?;
/// pool.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pool {
    keeper: Arc<Keeper>,
    renewal: JoinHandle<()>,
}

impl Pool {
    /// A pool, after a first connection has signed in.
    ///
    /// Its settings are the target's; `connect_timeout` gives way to the options' `acquire_timeout`.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`]; [`ConnectErrorKind::Config`] also for a target that sqlx cannot connect to, as told at
    /// the [module](self).
    pub async fn connect(connector: Connector, options: PgPoolOptions) -> Result<Pool, ConnectError> {
        let settings = settings(connector.target())?;
        let token = connector.token().await?;
        let pool = options.connect_lazy_with(settings.clone().password(token.expose_secret()));
        let keeper = Arc::new(Keeper { connector, settings, given: Mutex::new(token), pool });
        let renewal = tokio::spawn(keep(keeper.clone()));
        let pool = Pool { keeper, renewal };
        pool.acquire().await?;
        Ok(pool)
    }

    /// The pool, for everything that sqlx does with one. Clones get fresh tokens until this `Pool` is dropped.
    pub fn pool(&self) -> &PgPool {
        &self.keeper.pool
    }

    /// A connection that was signed in. In contrast to sqlx's own `acquire` the error says why there is none, and where
    /// an out-of-date token can be the reason, a newer one is tried once.
    ///
    /// # Errors
    /// See [`ConnectErrorKind`]. Where every connection was in use, or the server could not be reached, all through
    /// sqlx's `acquire_timeout`: [`ConnectErrorKind::Timeout`].
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, ConnectError> {
        let keeper = &self.keeper;
        let token = match keeper.renew().await {
            Ok(token) => token,
            // An idle connection of the pool needs no token.
            Err(no_token) => return keeper.pool.acquire().await.map_err(|_| no_token),
        };
        let refused = match keeper.pool.acquire().await {
            Ok(connection) => return Ok(connection),
            Err(error) => keeper.explain(error, &token),
        };
        if !is_stale(&refused) {
            return Err(refused);
        }
        let newer = keeper.connector.newer(&token, refused).await?;
        keeper.give(&newer);
        keeper.pool.acquire().await.map_err(|error| keeper.explain(error, &newer))
    }

    /// Gives the pool the credential's token now; by itself it does so every ten seconds. Says why there is no token,
    /// where an error of sqlx does not.
    ///
    /// # Errors
    /// There is no token ([`ConnectErrorKind::Token`]).
    pub async fn renew(&self) -> Result<(), ConnectError> {
        self.keeper.renew().await.map(drop)
    }

    /// Stops the renewal, waits until all connections are returned to the pool, and closes each with a Terminate message.
    pub async fn close(self) {
        self.keeper.pool.close().await;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Renews the pool's token at each tick of `RENEWAL` until the pool is closed.
async fn keep(keeper: Arc<Keeper>) {
    let renewing = async {
        let mut renewal = interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renewal.tick().await;
            if let Err(error) = keeper.renew().await {
                let cause = error.token_error().map(tracing::field::display);
                tracing::warn!(%error, cause, "the pool's token could not be renewed");
            }
        }
    };
    // An error means that the pool was closed, which ends the renewal.
    let _: Result<(), Error> = keeper.pool.close_event().do_until(renewing).await;
}

struct Keeper {
    connector: Connector,
    /// The options of the connections, without the password.
    settings: PgConnectOptions,
    given: Mutex<AccessToken>,
    pool: PgPool,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("connector", &self.connector).field("pool", &self.pool).finish()
    }
}

impl Keeper {
    async fn renew(&self) -> Result<AccessToken, ConnectError> {
        let token = self.connector.token().await?;
        self.give(&token);
        Ok(token)
    }

    fn give(&self, token: &AccessToken) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.expose_secret() != token.expose_secret() {
            self.pool.set_connect_options(self.settings.clone().password(token.expose_secret()));
            *given = token.clone();
            tracing::debug!("the pool has a new token");
        }
    }

    /// sqlx's error in our words.
    fn explain(&self, error: Error, token: &AccessToken) -> ConnectError {
        let host = self.settings.get_host();
        match error {
            Error::Database(error) => {
                let claims = UnverifiedClaims::of(token);
                let target = self.connector.target();
                let sign_in = AttemptedSignIn {
                    role: target.user(),
                    database: target.database(),
                    token: token.expose_secret(),
                    claims: claims.as_ref(),
                };
                handshake::refused(&fields(error.as_ref()), &sign_in)
            }
            Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                tls::handshake_failed(error, host, SslNegotiation::Postgres)
            }
            Error::Io(error) => {
                ConnectError::new(ConnectErrorKind::Tcp, format!("no connection to {host}")).because(error)
            }
            Error::PoolTimedOut => ConnectError::new(
                ConnectErrorKind::Timeout,
                "no connection of the pool became free, and none could be opened, in time",
            )
            .hinting("is the server running? Else let the pool have more connections, or return them sooner"),
            Error::PoolClosed => ConnectError::config("the pool was closed"),
            error => ConnectError::protocol("sqlx cannot open a connection").because(error),
        }
    }
}

fn fields(error: &dyn DatabaseError) -> Fields {
    let fields = Fields::new(Severity::Fatal, &error.code().unwrap_or_default(), error.message());
    let postgres = error.try_downcast_ref::<PgDatabaseError>();
    let (detail, hint) =
        (postgres.and_then(PgDatabaseError::detail), postgres.and_then(PgDatabaseError::hint));
    let fields = detail.into_iter().fold(fields, Fields::with_detail);
    hint.into_iter().fold(fields, Fields::with_hint)
}

const SEVERAL: &str =
    "name the one host of pgentra proxy, which takes the server that suits; or use deadpool-postgres or bb8";

/// The target in sqlx's terms, without a password.
fn settings(target: &Target) -> Result<PgConnectOptions, ConnectError> {
    let refuse = |what: &str| Err(ConnectError::config(format!("sqlx cannot connect with {what}")));
    let several = |what| refuse(what).map_err(|error| error.hinting(SEVERAL));
    let [endpoint] = target.endpoints() else { return several("several hosts") };
    if target.session_attrs() != SessionAttrs::Any {
        return several("target_session_attrs");
    }
    if endpoint.address.is_some() {
        return refuse("hostaddr");
    }
    if target.ssl_negotiation() != SslNegotiation::Postgres {
        return refuse("sslnegotiation=direct");
    }
    if target.ssl_mode() != SslMode::VerifyFull {
        return refuse("sslmode=verify-ca");
    }
    // Only a URI can hold options that are written already.
    let options = target.options().map(url_value);
    let url = options
        .map_or_else(|| "postgresql:///".to_owned(), |options| format!("postgresql:///?options={options}"));
    let settings = PgConnectOptions::from_str(&url)
        .map_err(|error| ConnectError::config("sqlx does not take the options").because(error))?
        .host(&endpoint.host)
        .port(endpoint.port)
        .username(target.user())
        .database(target.database())
        .ssl_mode(PgSslMode::VerifyFull);
    let settings = match &target.roots().0 {
        RootSource::Own { path: Some(path), .. } => settings.ssl_root_cert(path),
        RootSource::Own { path: None, .. } => {
            return refuse("trusted authorities that are in no file; name one with sslrootcert");
        }
        // None, so that PGSSLROOTCERT, which sqlx reads by itself, adds none.
        RootSource::Platform => settings.ssl_root_cert_from_pem(Vec::new()),
    };
    Ok(match target.application_name() {
        Some(name) => settings.application_name(name),
        None => settings,
    })
}

#[cfg(test)]
mod tests {
    use pgentra_system::{Env, Files};

    use super::*;
    use crate::Layers;

    fn check(text: &str) -> Result<PgConnectOptions, String> {
        let (env, files) = (Env::from_map::<String, String>([]), Files::in_memory());
        files.put("ca.pem", rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem());
        let target = Target::resolve(&Layers::gather(Some(text), &[], &env, &files).unwrap()).unwrap();
        settings(&target).map_err(|error| error.to_string())
    }

    /// Invariant 1: a token leaves the process only inside verified TLS.
    #[test]
    fn the_server_is_always_verified_for_its_name() {
        for text in ["host=h user=u", "host=h user=u sslrootcert=ca.pem"] {
            assert!(matches!(check(text).unwrap().get_ssl_mode(), PgSslMode::VerifyFull), "{text}");
        }
        let refused = check("host=h user=u sslmode=verify-ca sslrootcert=ca.pem").unwrap_err();
        assert!(refused.contains("verify-ca"), "{refused}");
    }

    #[test]
    fn what_sqlx_cannot_do_is_refused() {
        for (text, what) in [
            ("host=a,b user=u", "several hosts"),
            ("host=a user=u target_session_attrs=primary", "target_session_attrs"),
            ("host=a hostaddr=127.0.0.1 user=u", "hostaddr"),
            ("host=a user=u sslnegotiation=direct", "direct"),
        ] {
            let refused = check(text).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn settings_are_the_targets() {
        let settings =
            check("host=h port=7 user='a b' dbname=d application_name=n options='-c search_path=x'").unwrap();
        assert_eq!((settings.get_host(), settings.get_port()), ("h", 7));
        assert_eq!((settings.get_username(), settings.get_database()), ("a b", Some("d")));
        assert_eq!(settings.get_application_name(), Some("n"));
        assert_eq!(settings.get_options(), Some("-c search_path=x"));
    }
}
