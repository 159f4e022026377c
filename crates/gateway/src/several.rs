//! Several servers with the same data, a primary and its standbys: which of them takes a client.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use pgentra_session::login_error::{LoginError, chain};
use pgentra_wire::session_attrs::{ServerState, SessionAttrs};
use tokio::time::Instant;

use crate::control::ControlError;
use crate::{Gateway, refusal};

/// For how long a server that could not be reached is asked after the others: a host that drops
/// packets would hold up each login.
const AVOIDED: Duration = Duration::from_secs(5);

/// No server can take a client.
#[derive(Debug, thiserror::Error)]
#[error("no server fits target_session_attrs={wanted}: {servers}")]
pub(crate) struct NoServerFits {
    wanted: SessionAttrs,
    /// What each of them is.
    servers: String,
}

impl Gateway {
    /// This server and the further ones, in order.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Gateway> {
        std::iter::once(self).chain(self.further.iter().map(|member| &**member))
    }

    /// Whether there is a choice, or a condition.
    fn is_choosy(&self) -> bool {
        !self.further.is_empty() || self.config.target_session_attrs != SessionAttrs::Any
    }

    /// The server that takes a client now. With one server and no condition it is not asked.
    pub(crate) async fn suitable(&self) -> Result<&Gateway, NoServerFits> {
        Ok(match self.position().await? {
            0 => self,
            position => self.further.get(position - 1).map_or(self, |member| member),
        })
    }

    /// The same for a client, which gets an error if there is none.
    pub(crate) async fn taking(self: Arc<Self>) -> Result<Arc<Gateway>, LoginError> {
        match self.position().await {
            Ok(0) => Ok(self),
            Ok(position) => Ok(self.further.get(position - 1).map_or_else(|| self.clone(), Arc::clone)),
            Err(error) => {
                let (server, error) = (&self.config.name, error.to_string());
                tracing::error!(server, error, "no server takes a client");
                self.config.telemetry.mapping(server, Some(error));
                Err(refusal::no_server_fits(self.config.target_session_attrs).into())
            }
        }
    }

    /// The first of the members that suits, asked in order.
    async fn position(&self) -> Result<usize, NoServerFits> {
        if !self.is_choosy() {
            return Ok(0);
        }
        let wanted = self.config.target_session_attrs;
        let mut order: Vec<(usize, &Gateway)> = self.members().enumerate().collect();
        order.sort_by_key(|(_, member)| member.is_avoided());
        let (mut second, mut servers) = (None, Vec::new());
        for (position, member) in order {
            let state = match member.state().await {
                Ok(state) if wanted.fits(state) => return Ok(position),
                Ok(state) => {
                    second = second.or(Some(position));
                    state.to_string()
                }
                Err(error) => chain(&error),
            };
            servers.push(format!("{}: {state}", member.config.upstream));
        }
        match second {
            Some(position) if wanted == SessionAttrs::PreferStandby => Ok(position),
            _ => Err(NoServerFits { wanted, servers: servers.join("; ") }),
        }
    }

    /// Asks the server. `default_transaction_read_only` is not asked for, because the control
    /// connection overrides it.
    async fn state(&self) -> Result<ServerState, ControlError> {
        let asked = self.control.query("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
        let failed = asked.is_err().then(Instant::now);
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        let rows = asked?;
        let is_standby = rows.first().ok_or(ControlError::Mapping)?.get(0);
        Ok(ServerState { is_standby, only_reads: is_standby })
    }

    fn is_avoided(&self) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|failed_at| failed_at.elapsed() < AVOIDED)
    }
}
