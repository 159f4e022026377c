//! The judgement of a token without a session: what a sign-in at the server itself asks for.

use pgentra_session::login_error::{LoginError, chain};
use pgentra_verify::{Principal, Verifier};
use pgentra_wire::fields::Fields;

use super::login::RoleMapping;
use super::{Gateway, refusal};

/// What a client gets that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {sqlstate})")]
pub struct GatewayRefusal {
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The message.
    pub message: String,
}

impl Gateway {
    /// Whether a token would sign in as a role; `None`: the role is not mapped. The server is asked
    /// for the mapping, and for nothing else.
    ///
    /// On Single Server, PostgreSQL also compares an id of the token with the role's password, which
    /// is not asked here: a role with one is refused.
    ///
    /// # Errors
    /// The SQLSTATE and the message that a client gets.
    pub async fn judge(&self, role: &str, token: &str) -> Result<Option<Principal>, GatewayRefusal> {
        let refused = |fields: Fields| GatewayRefusal {
            sqlstate: fields.sqlstate().into_owned(),
            message: fields.message().into_owned(),
        };
        let mapping = match self.claim(role.as_bytes()).await {
            Ok(Some((_, mapping))) => mapping,
            Ok(None) => return Ok(None),
            Err(LoginError::Rejected(fields)) => return Err(refused(fields)),
            Err(_) => return Err(refused(refusal::unreachable())),
        };
        let principal = self.verify(role, token).await.map_err(refused)?;
        match mapping {
            RoleMapping::Flexible(mapping) => mapping.authorize(role, &principal).map_err(refused)?,
            RoleMapping::Single(member) => member.authorize_by_name(role, &principal).map_err(refused)?,
        }
        Ok(Some(principal))
    }

    /// Whose token it is, if it is good.
    pub(crate) async fn verify(&self, role: &str, token: &str) -> Result<Principal, Fields> {
        let verifier: &Verifier = &self.config.verifier;
        verifier.verify(token, (self.config.clock)()).await.map_err(|rejection| {
            tracing::warn!(role, error = chain(&rejection), "an access token was refused");
            refusal::rejected(&rejection, verifier.policy())
        })
    }
}
