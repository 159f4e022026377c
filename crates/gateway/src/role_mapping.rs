//! What maps a role to principals, and whether the owner of a verified token may use it.

use std::sync::Arc;

use pgentra_session::login_error::LoginError;
use pgentra_verify::Principal;
use pgentra_wire::fields::Fields;
use secrecy::SecretString;
use uuid::Uuid;

use crate::control::ControlError;
use crate::flexible::Mapping;
use crate::single::Member;
use crate::{Flavour, Gateway, RoleRules, RoleSource};

/// What maps a role to Entra, in the form of its source.
pub(crate) enum RoleMapping {
    Flexible(Mapping),
    Single(Member),
    Rules(Arc<RoleRules>),
}

impl RoleMapping {
    /// The groups that decide whether a principal may use the role.
    pub(crate) fn groups(&self, role: &str) -> Vec<Uuid> {
        match self {
            Self::Flexible(mapping) => mapping.group().into_iter().collect(),
            Self::Single(member) => member.group().into_iter().collect(),
            Self::Rules(rules) => rules.groups(role),
        }
    }

    /// Whether the gateway knows the role's password.
    pub(crate) fn is_adopted(&self) -> bool {
        match self {
            Self::Flexible(mapping) => mapping.is_adopted,
            Self::Single(member) => member.is_adopted,
            Self::Rules(_) => true,
        }
    }

    /// The passwords to try for the owner of a verified token, which may use the role. None: the
    /// gateway's own. `further` are groups that the directory confirms.
    fn authorize(
        &self,
        role: &str,
        principal: &Principal,
        further: Option<&[Uuid]>,
    ) -> Result<Vec<SecretString>, Fields> {
        match self {
            Self::Flexible(mapping) => mapping.authorize(role, principal, further).map(|()| Vec::new()),
            Self::Rules(rules) => rules.authorize(role, principal, further).map(|()| Vec::new()),
            Self::Single(member) => member.authorize(role, principal, further),
        }
    }
}

impl Gateway {
    /// The mapping of a role; `None` if the role does not sign in with tokens.
    pub(crate) async fn find(&self, role: &str) -> Result<Option<RoleMapping>, ControlError> {
        Ok(match &self.config.roles {
            RoleSource::Database(Flavour::Flexible) => {
                Mapping::find(&self.control, role).await?.map(RoleMapping::Flexible)
            }
            RoleSource::Database(Flavour::Single) => {
                Member::find(&self.control, role).await?.map(RoleMapping::Single)
            }
            RoleSource::Rules(rules) => {
                let rules = rules.current();
                rules.has(role).then_some(RoleMapping::Rules(rules))
            }
        })
    }

    /// The same as [`RoleMapping::authorize`], with what the directory is to be asked for. It is asked for
    /// the account last: about a principal that may use the role.
    pub(crate) async fn authorize(
        &self,
        claim: &RoleMapping,
        role: &str,
        principal: &Principal,
    ) -> Result<Vec<SecretString>, LoginError> {
        // What the token proves by itself needs no directory.
        let mut authorized = claim.authorize(role, principal, None);
        if authorized.is_err()
            && let Some(further) = self.groups_beyond_the_token(claim, role, principal).await?
        {
            authorized = claim.authorize(role, principal, Some(&further));
        }
        let passwords = authorized.inspect_err(|fields| {
            tracing::warn!(role, oid = %principal.object_id(), reason = &*fields.message(), "an access token does not fit the role");
        })?;
        self.check_account(role, principal).await?;
        Ok(passwords)
    }
}
