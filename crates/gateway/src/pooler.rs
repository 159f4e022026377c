//! A PgBouncer between the gateway and its PostgreSQL.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use pgentra_session::login_error::{LoginError, chain};
use pgentra_wire::startup::StartupMessage;
use secrecy::SecretString;
use tokio_postgres::types::Type;

use crate::Gateway;
use crate::control::column;
use crate::login::ServerOpening;
use crate::refusal;
use crate::role_mapping::RoleMapping;
use crate::upstream::UpstreamAddress;
use crate::upstream_login::UpstreamLogin;
use crate::upstream_stream::UpstreamStream;

/// The database of PgBouncer's admin console (PgBouncer documentation, "Admin console").
const CONSOLE: &[u8] = b"pgbouncer";

/// A PgBouncer through which the gateway opens sessions. It asks for SCRAM-SHA-256 with the roles' own
/// passwords, which it looks up at the server, and leads each database to the database of the same name.
/// Its `stats_users` is the service account, as which the gateway opens the admin console for others: no
/// other user may be in its `auth_file`, because PgBouncer 1.18 ends when a user is in it that was not
/// before (`put_in_order: found existing elem`).
#[derive(Clone)]
pub struct Pooler {
    /// Where it listens.
    pub address: UpstreamAddress,
    /// Whether a role may use the admin console.
    pub may_use_console: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for Pooler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooler").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Whether the start-up is one of PgBouncer's admin console, and not of a session in PostgreSQL.
    ///
    /// # Errors
    /// The role may not use the console. The database does not exist: PgBouncer looks for the role's password there, and
    /// 1.18 answers only after its `query_wait_timeout`.
    pub(crate) async fn is_console(&self, role: &[u8], start: &StartupMessage) -> Result<bool, LoginError> {
        let Some(pooler) = &self.config.pooler else { return Ok(false) };
        if start.database() == CONSOLE {
            let is_allowed = std::str::from_utf8(role).is_ok_and(|role| (pooler.may_use_console)(role));
            return if is_allowed { Ok(true) } else { Err(refusal::no_console().into()) };
        }
        let database = String::from_utf8_lossy(start.database());
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1 AND datallowconn)";
        let found = async {
            let rows = self.control.query(sql, &[(&&*database, Type::TEXT)]).await?;
            rows.first().map_or(Ok(false), |row| column(row, 0))
        };
        match found.await {
            Ok(true) => Ok(false),
            Ok(false) => Err(refusal::no_database(&database).into()),
            Err(error) => {
                tracing::error!(error = chain(&error), "the databases cannot be read");
                Err(refusal::unreachable().into())
            }
        }
    }

    /// Where a client proves its password, and with which start-up: for the console at the server itself.
    pub(crate) fn proof_of_password<'a>(
        &'a self,
        is_console: bool,
        start: &'a StartupMessage,
    ) -> Result<(&'a UpstreamAddress, Cow<'a, StartupMessage>), LoginError> {
        if !is_console {
            return Ok((self.config.sessions_at(), Cow::Borrowed(start)));
        }
        Ok((&self.config.upstream, Cow::Owned(at_the_server(start)?)))
    }

    /// Where sessions of clients are opened.
    pub(crate) fn opening<'a>(&'a self, start: &'a StartupMessage) -> ServerOpening<'a> {
        ServerOpening { address: self.config.sessions_at(), start }
    }

    /// Opens and ends a session of the role at the server itself, before the console is opened as the service account.
    /// `false`: none of the passwords is right.
    ///
    /// # Errors
    /// The server's own, as of a role with `NOLOGIN`.
    pub(crate) async fn may_log_in(
        &self,
        role: &str,
        claim: &RoleMapping,
        passwords: &[SecretString],
        start: &StartupMessage,
    ) -> Result<bool, LoginError> {
        let start = at_the_server(start)?;
        let opening = ServerOpening { address: &self.config.upstream, start: &start };
        let Some(mut login) = self.open_as(role, claim, passwords, opening).await? else { return Ok(false) };
        // The server looks at NOLOGIN after the password.
        login.wait_until_ready().await.map_err(|error| self.failed(error))?;
        login.end().await;
        Ok(true)
    }

    /// Opens the console as the service account, for a client that may use it.
    pub(crate) async fn open_console(
        &self,
        start: &StartupMessage,
    ) -> Result<UpstreamLogin<UpstreamStream>, LoginError> {
        let service = &self.config.service;
        let start = start.clone().with("user", &service.name)?;
        let login = self.try_password(&service.name, self.opening(&start), &service.password).await?;
        login.ok_or_else(|| refusal::broken().into())
    }
}

/// The start-up of the console's user at the server itself.
fn at_the_server(start: &StartupMessage) -> Result<StartupMessage, LoginError> {
    Ok(start.clone().without(|name| name != b"user").with("database", "postgres")?)
}
