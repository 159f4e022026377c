//! Roles mapped by object id, as on Flexible Server.

use pgentra_verify::{Principal, SubjectKind};
use pgentra_wire::fields::Fields;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::control::{ControlConnection, ControlError, column};
use super::membership::is_member;
use super::principal::PrincipalKind;
use super::refusal;

const FIND: &str = "SELECT object_id::text, kind::text, is_mfa::boolean, is_adopted::boolean \
    FROM pgentra.mapping WHERE rolname = $1::text";
/// The number of mapped roles, and whether each of them can be read as [`FIND`] reads it.
pub(crate) const COUNT: &str = "SELECT count(*), count(*) = count(*) FILTER (WHERE \
    (rolname::text, object_id::text, kind::text, is_mfa::boolean, is_adopted::boolean) IS NOT NULL) \
    FROM pgentra.mapping";

/// The principal that a role is mapped to.
#[derive(Debug)]
pub(crate) struct Mapping {
    object_id: Uuid,
    kind: PrincipalKind,
    multi_factor: bool,
    /// Whether the gateway knows the role's password.
    pub(crate) is_adopted: bool,
}

impl Mapping {
    /// The mapping of a role; `None` for one that is not mapped, or does not exist.
    pub(crate) async fn find(control: &ControlConnection, role: &str) -> Result<Option<Self>, ControlError> {
        let rows = control.query(FIND, &[(&role, Type::TEXT)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (Ok(object_id), Ok(kind)) = (column::<&str>(row, 0)?.parse(), column::<&str>(row, 1)?.parse())
        else {
            return Err(ControlError::Mapping);
        };
        let (multi_factor, is_adopted) = (column(row, 2)?, column(row, 3)?);
        Ok(Some(Self { object_id, kind, multi_factor, is_adopted }))
    }

    /// The group that the role is mapped to.
    pub(crate) fn group(&self) -> Option<Uuid> {
        (self.kind == PrincipalKind::Group).then_some(self.object_id)
    }

    /// Whether a verified token may sign in as this role. `further` are groups that the directory
    /// confirms. Checks the token's kind, then its principal, then the second factor.
    pub(crate) fn authorize(
        &self,
        role: &str,
        principal: &Principal,
        further: Option<&[Uuid]>,
    ) -> Result<(), Fields> {
        match (self.kind, principal.kind()) {
            // The object id of the service principal, or the id of its application: administrators copy either.
            (PrincipalKind::Service, SubjectKind::App) => {
                if ![Some(principal.object_id()), principal.app_id()].contains(&Some(self.object_id)) {
                    return Err(refusal::service_mismatch(self.object_id, principal));
                }
            }
            (PrincipalKind::Service, _) => return Err(refusal::user_token_for_service(role)),
            (PrincipalKind::User, SubjectKind::User) => {
                if principal.object_id() != self.object_id {
                    return Err(refusal::user_mismatch(role, self.object_id, principal));
                }
            }
            (PrincipalKind::User, _) => return Err(refusal::app_token_for_user(role)),
            // Users and applications alike: a group may have both as members.
            (PrincipalKind::Group, _) => {
                if !is_member(principal, self.object_id, further) {
                    return Err(refusal::not_in_group(role, self.object_id, principal));
                }
            }
        }
        if self.multi_factor && !principal.multi_factor() {
            return Err(refusal::no_second_factor());
        }
        Ok(())
    }
}
