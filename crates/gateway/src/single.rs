//! Members of `azure_ad_user`, as on Single Server.

use pgentra_verify::{Principal, SubjectKind};
use pgentra_wire::fields::Fields;
use secrecy::SecretString;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::control::{ControlConnection, ControlError, column};
use super::membership::is_member;
use super::principal::PrincipalKind;
use super::refusal;

const FIND: &str = "SELECT by_name::boolean, is_adopted::boolean, object_id::text, kind::text \
    FROM pgentra.member WHERE rolname = $1::text";
/// The number of members, and whether each of them can be read as [`FIND`] reads it.
pub(crate) const COUNT: &str = "SELECT count(*), count(*) = count(*) FILTER (WHERE \
    (rolname::text, by_name::boolean, is_adopted::boolean) IS NOT NULL \
    AND (object_id::text IS NULL) = (kind::text IS NULL)) FROM pgentra.member";

/// A role that is a member of `azure_ad_user`, which marks Entra roles on Single Server.
#[derive(Debug)]
pub(crate) struct Member {
    /// The role has no password of its own, so its principal is found by name.
    by_name: bool,
    /// Whether the gateway knows the role's password or may set it.
    pub(crate) is_adopted: bool,
    /// The principals with the role's name, if the directory has any.
    named: Vec<(Uuid, PrincipalKind)>,
}

impl Member {
    /// The role of this name, if it is a member of `azure_ad_user`.
    pub(crate) async fn find(control: &ControlConnection, role: &str) -> Result<Option<Self>, ControlError> {
        let rows = control.query(FIND, &[(&role, Type::TEXT)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let mut named = Vec::new();
        for row in &rows {
            if let (Some(object_id), Some(kind)) =
                (column::<Option<&str>>(row, 2)?, column::<Option<&str>>(row, 3)?)
            {
                match (object_id.parse(), kind.parse()) {
                    (Ok(object_id), Ok(kind)) => named.push((object_id, kind)),
                    _ => return Err(ControlError::Mapping),
                }
            }
        }
        Ok(Some(Self { by_name: column(row, 0)?, is_adopted: column(row, 1)?, named }))
    }

    /// The group that the role is made by the name of.
    pub(crate) fn group(&self) -> Option<Uuid> {
        match self.named[..] {
            [(group, PrincipalKind::Group)] if self.by_name => Some(group),
            _ => None,
        }
    }

    /// The passwords to try for the principal of a verified token, in this order. The server
    /// compares them: a role's password is a client id or an object id. None: the gateway's own.
    pub(crate) fn authorize(
        &self,
        role: &str,
        principal: &Principal,
        further: Option<&[Uuid]>,
    ) -> Result<Vec<SecretString>, Fields> {
        if self.by_name {
            self.judge_name(role, principal, further)?;
            return Ok(Vec::new());
        }
        let object_id = principal.object_id();
        Ok(match (principal.kind(), principal.app_id()) {
            (SubjectKind::App, Some(app_id)) => vec![app_id, object_id],
            // A user's token names the application that the user signed in with. That user must not
            // use the application's own role.
            _ => vec![object_id],
        }
        .into_iter()
        .map(|id| id.to_string().into())
        .collect())
    }

    /// The error when none of the passwords is right.
    pub(crate) fn mismatch(role: &str, principal: &Principal) -> Fields {
        match principal.kind() {
            SubjectKind::App => refusal::service_mismatch_single(role),
            _ => refusal::user_mismatch_single(role),
        }
    }

    /// A role made by name belongs to the only principal of that name. If the directory has none,
    /// the name in a user's token is compared.
    fn judge_name(&self, role: &str, principal: &Principal, further: Option<&[Uuid]>) -> Result<(), Fields> {
        let fits = match self.named[..] {
            [] => principal.kind() == SubjectKind::User && principal.user_principal_name() == Some(role),
            [(group, PrincipalKind::Group)] => {
                if !is_member(principal, group, further) {
                    return Err(refusal::not_in_group_single(role, group, principal));
                }
                true
            }
            [(object_id, PrincipalKind::User)] => {
                principal.kind() == SubjectKind::User && principal.object_id() == object_id
            }
            [(object_id, PrincipalKind::Service)] => {
                principal.kind() == SubjectKind::App && principal.object_id() == object_id
            }
            // Several principals of that name: which one is meant cannot be told, so none signs in.
            _ => false,
        };
        if fits { Ok(()) } else { Err(Self::mismatch(role, principal)) }
    }
}

/// The role's name in a user name: without a trailing `@server`. The last `@` counts, because
/// sign-in names contain one too. Server names are host names, so case does not matter.
pub(crate) fn role_name<'a>(user: &'a [u8], server_name: &str) -> &'a [u8] {
    match user.iter().rposition(|byte| *byte == b'@') {
        Some(at) if user[at + 1..].eq_ignore_ascii_case(server_name.as_bytes()) => &user[..at],
        _ => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_cut_off_a_user_name() {
        for (user, role) in [
            ("myuser", "myuser"),
            ("myuser@mydemoserver", "myuser"),
            ("myuser@MyDemoServer", "myuser"),
            ("admin@tenant.onmicrosoft.com@mydemoserver", "admin@tenant.onmicrosoft.com"),
            ("admin@tenant.onmicrosoft.com", "admin@tenant.onmicrosoft.com"),
            ("myuser@otherserver", "myuser@otherserver"),
            ("@mydemoserver", ""),
            ("mydemoserver", "mydemoserver"),
        ] {
            assert_eq!(role_name(user.as_bytes(), "mydemoserver"), role.as_bytes(), "{user}");
        }
    }
}
