//! Which roles the operator makes, written down before they are there.

use std::collections::BTreeMap;
use std::error::Error;

use pgentra_roles::directory::BoxFuture;
use pgentra_roles::{MadeRoles, Plan, RolesError, ServerSessions};
use tokio::sync::Mutex;

use crate::resource::{PostgresRolesStatus, RoleStatus};
use crate::status_file::StatusFile;

/// The status of a resource while a plan is applied.
pub(crate) struct MadeRecord<'a> {
    status: Mutex<&'a mut PostgresRolesStatus>,
    file: &'a StatusFile,
}

impl MadeRecord<'_> {
    /// Applies a plan. The roles that it makes are in the status, with their numbers, before they are committed: if the
    /// process ends then or the answer is lost, the next look knows them.
    ///
    /// # Errors
    /// Those of [`Plan::apply_keeping`].
    pub(crate) async fn apply(
        plan: &Plan,
        sessions: &ServerSessions,
        (status, file): (&mut PostgresRolesStatus, &StatusFile),
    ) -> Result<(), RolesError> {
        let before = status.roles.clone();
        let record = MadeRecord { status: Mutex::new(status), file };
        let applied = plan.apply_keeping(sessions, &record).await;
        if applied.as_ref().is_err_and(is_rolled_back) {
            record.status.into_inner().roles = before;
        }
        applied
    }
}

impl MadeRoles for MadeRecord<'_> {
    fn keep<'a>(
        &'a self,
        roles: &'a BTreeMap<String, u32>,
    ) -> BoxFuture<'a, Result<(), Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let mut status = self.status.lock().await;
            mark(&mut status.roles, roles);
            Ok(self.file.write(&status).await?)
        })
    }
}

fn mark(roles: &mut [RoleStatus], made: &BTreeMap<String, u32>) {
    for role in roles {
        if let Some(oid) = made.get(&role.name) {
            (role.created, role.oid) = (true, Some(i64::from(*oid)));
        }
    }
}

/// Whether it is certain that no role was made.
fn is_rolled_back(error: &RolesError) -> bool {
    // A connection may break while the commit is under way.
    !matches!(error, RolesError::HalfApplied { .. } | RolesError::Broken { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_roles_have_a_number() {
        let mut roles = vec![RoleStatus::found("a"), RoleStatus::found("b")];
        mark(&mut roles, &[("b".to_owned(), 4_000_000_000), ("c".to_owned(), 5)].into());
        assert_eq!(roles.iter().map(RoleStatus::made).collect::<Vec<_>>(), [None, Some(4_000_000_000)]);
        // Made again, it has the new number.
        mark(&mut roles, &[("b".to_owned(), 7)].into());
        assert_eq!(roles[1].made(), Some(7));
    }

    #[test]
    fn a_role_may_be_there_unless_its_transaction_was_rolled_back() {
        assert!(is_rolled_back(&RolesError::NotEntra));
        let done = vec!["postgres".to_owned()];
        assert!(!is_rolled_back(&RolesError::HalfApplied { done, source: Box::new(RolesError::NotEntra) }));
    }
}
