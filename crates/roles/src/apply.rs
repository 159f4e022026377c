//! Applies a plan to a server.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use super::change::{Change, Principal};
use super::error::RolesError;
use super::loan::Loan;
use super::matching::{Matching, matching};
use super::name::quoted;
use super::object::ObjectKind;
use super::plan::{DatabaseView, Plan};
use super::read::Roles;
use super::script::Script;
use super::server::{DatabaseSession, PRINCIPALS, ServerSessions};
use crate::directory::BoxFuture;

/// Key of the advisory lock that serialises processes that apply role changes to one server. The number is arbitrary
/// (`pgentra` in ASCII, then 1) and must be the same in all versions.
const LOCK: i64 = 0x7067_656e_7472_6101;

/// Longer than the statements here take, and short enough for a user who waits.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '30s'";

/// A change of an owner locks its object against every other use. Whoever comes later waits behind it, so it waits shorter.
const OWNER_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '5s'";

/// Keeps which roles a plan makes.
pub trait MadeRoles: Send + Sync {
    /// Called once before the transaction that makes roles is committed, with the name and the number (`oid`) of each. The
    /// transaction may still fail, but no role of this plan is made that was not kept before.
    ///
    /// # Errors
    /// They could not be kept. The transaction is rolled back.
    fn keep<'a>(
        &'a self,
        roles: &'a BTreeMap<String, u32>,
    ) -> BoxFuture<'a, Result<(), Box<dyn Error + Send + Sync>>>;
}

/// One transaction: a database and what is changed there, in this order.
struct DatabaseTransaction<'a> {
    database: &'a str,
    changes: Vec<&'a Change>,
}

impl Plan {
    /// Makes the changes. Each database is changed in one transaction, the database `postgres` first. If there are several
    /// databases, the changes of the others are run and rolled back before (a dry run). At the end of each transaction the
    /// database is read again; if it differs from the file, the transaction is rolled back. The transactions of the other
    /// databases are committed together at the end, except those that clear a role that will be dropped, and those in which
    /// the session's user becomes a member of a role for the length of the transaction: each of them is committed at once,
    /// because it locks roles.
    ///
    /// Cancel-safe between databases only: dropped, the transactions that are open are rolled back.
    ///
    /// # Errors
    /// Only [`RolesError::HalfApplied`] means that a transaction was committed.
    pub async fn apply(&self, server: &ServerSessions) -> Result<(), RolesError> {
        self.carry_out(server, None).await
    }

    /// The same, and tells which roles it makes before they are committed.
    ///
    /// # Errors
    /// As [`Plan::apply`]; [`RolesError::NotKept`] if `made` fails.
    pub async fn apply_keeping(
        &self,
        server: &ServerSessions,
        made: &dyn MadeRoles,
    ) -> Result<(), RolesError> {
        self.carry_out(server, Some(made)).await
    }

    async fn carry_out(
        &self,
        server: &ServerSessions,
        made: Option<&dyn MadeRoles>,
    ) -> Result<(), RolesError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let principals = open(server, PRINCIPALS).await?;
        // Held by the session, over all transactions: two applies at a time would each change what the other has read.
        principals.query("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
        let steps = self.steps();
        let others = || steps.iter().filter(|step| step.database != PRINCIPALS);
        // Roles are committed before the grants in other databases. A grant that fails then would leave half of the plan,
        // so every other database runs its changes once and rolls back before anything is committed.
        for step in others() {
            let open = open(server, step.database).await?;
            open.run("BEGIN").await?;
            self.stand_in(&open).await?;
            self.run(&open, &self.rehearsed(step)).await?;
            open.run("ROLLBACK").await?;
        }
        let mut done = Vec::new();
        let result = self.run_all((server, &principals), &steps, made, &mut done).await;
        match result {
            // Some databases are committed: the error has to name them, because a second run starts from there.
            Err(source) if !done.is_empty() => {
                Err(RolesError::HalfApplied { done, source: Box::new(source) })
            }
            other => other,
        }
    }

    async fn run_all(
        &self,
        (server, principals): (&ServerSessions, &DatabaseSession),
        steps: &[DatabaseTransaction<'_>],
        made: Option<&dyn MadeRoles>,
        done: &mut Vec<String>,
    ) -> Result<(), RolesError> {
        let (mut waiting, mut last) = (Vec::new(), None);
        for (number, step) in steps.iter().enumerate() {
            if step.database != PRINCIPALS {
                let other = open(server, step.database).await?;
                other.run("BEGIN").await?;
                self.run(&other, step).await?;
                let joins = self.loan(step).is_some();
                if joins || step.changes.iter().any(|change| matches!(change, Change::Clear { .. })) {
                    // `DROP OWNED` and a membership hold locks on roles, which are shared by all databases; the next
                    // transaction needs them.
                    other.run("COMMIT").await?;
                    done.push(other.database);
                } else {
                    waiting.push(other);
                }
            } else if number == 0 {
                principals.run("BEGIN").await?;
                self.run(principals, step).await?;
                if let Some(made) = made {
                    keep_made(principals, step, made).await?;
                }
                principals.run("COMMIT").await?;
                done.push(PRINCIPALS.to_owned());
            } else {
                last = Some(step);
            }
        }
        for other in waiting {
            other.run("COMMIT").await?;
            done.push(other.database);
        }
        if let Some(step) = last {
            principals.run("BEGIN").await?;
            self.run(principals, step).await?;
            principals.run("COMMIT").await?;
        }
        Ok(())
    }

    /// The plan as a script for psql: what [`Plan::apply`] runs, in the same order and the same transactions. It ends at the
    /// first error.
    ///
    /// # Errors
    /// [`RolesError::NotForScript`] where a name has a control character or another one that does not show.
    pub fn script(&self) -> Result<String, RolesError> {
        let mut script = Script::new();
        for step in &self.steps() {
            script.connect(step.database)?;
            script.statement("BEGIN")?;
            script.statement("SET LOCAL lock_timeout = '30s'")?;
            for statement in self.step_statements(step) {
                script.statement(&statement)?;
            }
            script.statement("COMMIT")?;
        }
        Ok(script.into_text())
    }

    /// The changes by database, in order: a role is created before its grants, and dropped after its privileges.
    fn steps(&self) -> Vec<DatabaseTransaction<'_>> {
        let place = |change: &Change| change.database().unwrap_or(PRINCIPALS).to_owned();
        let others: BTreeSet<String> =
            self.changes.iter().map(place).filter(|database| database != PRINCIPALS).collect();
        let clears_elsewhere = self
            .changes
            .iter()
            .any(|change| matches!(change, Change::Clear { database, .. } if database != PRINCIPALS));
        // A role cannot be dropped while another database has privileges of it, so the drop waits for the clears there.
        let is_last = |change: &Change| clears_elsewhere && matches!(change, Change::Drop { .. });
        let step = |database: &'_ str, of: &dyn Fn(&Change) -> bool| {
            let mut changes: Vec<&Change> = self.changes.iter().filter(|change| of(change)).collect();
            changes.sort_by_key(|change| rank(change));
            (database.to_owned(), changes)
        };
        let mut steps = vec![step(PRINCIPALS, &|change| place(change) == PRINCIPALS && !is_last(change))];
        steps.extend(others.iter().map(|other| step(other, &|change| place(change) == *other)));
        steps.push(step(PRINCIPALS, &is_last));
        steps
            .into_iter()
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(_, changes)| DatabaseTransaction {
                database: changes[0].database().unwrap_or(PRINCIPALS),
                changes,
            })
            .collect()
    }

    async fn run(&self, open: &DatabaseSession, step: &DatabaseTransaction<'_>) -> Result<(), RolesError> {
        for statement in self.step_statements(step) {
            open.run(&statement).await?;
        }
        self.check(open).await
    }

    /// The statements of a transaction: what it takes first is given back last, before memberships are changed.
    fn step_statements(&self, step: &DatabaseTransaction<'_>) -> Vec<String> {
        let of = |phase: Phase| {
            let changes = step.changes.iter().filter(move |change| Phase::of(change) == phase);
            changes.flat_map(|change| self.statements(change))
        };
        let loan = self.loan(step);
        let lent = |statements: fn(&Loan) -> Vec<String>| loan.map(statements).unwrap_or_default();
        let mut statements = Vec::new();
        if step.changes.iter().any(|change| matches!(change, Change::Own(_))) {
            statements.push(OWNER_LOCK_TIMEOUT.to_owned());
        }
        statements.extend(of(Phase::Roles));
        statements.extend(lent(Loan::begin));
        statements.extend(lent(Loan::begin_moves));
        statements.extend(of(Phase::Owners));
        statements.extend(lent(Loan::end_moves));
        statements.extend(of(Phase::Privileges));
        statements.extend(lent(Loan::end));
        statements.extend(of(Phase::Rest));
        statements
    }

    /// What the transaction takes and gives back.
    fn loan(&self, step: &DatabaseTransaction<'_>) -> Option<&Loan> {
        let takes = |change: &&Change| matches!(Phase::of(change), Phase::Owners | Phase::Privileges);
        self.loans.get(step.database).filter(|_| step.changes.iter().any(takes))
    }

    /// Reads the database again before the commit, and fails if it differs from the file: a `GRANT` by a role without the
    /// grant option is only a warning in PostgreSQL.
    async fn check(&self, open: &DatabaseSession) -> Result<(), RolesError> {
        let Some(file) = &self.file else { return Ok(()) };
        let roles = match open.database.as_str() {
            PRINCIPALS => Roles::read(open.client()).await?,
            _ => Roles::read_anywhere(open.client(), self.dialect.flavour).await?,
        };
        let mut left = Vec::new();
        let mut faults = Vec::new();
        if open.database == PRINCIPALS {
            let Matching { changes, faults: found, .. } = matching(&file.roles, &roles);
            left.extend(changes);
            faults.extend(found);
        }
        let now: Vec<Option<String>> = file.roles.iter().map(|role| Some(role.name.to_string())).collect();
        if file.databases().contains(open.database.as_str()) {
            let look = DatabaseView { open, roles: &roles, now: &now };
            left.extend(look.difference(&file.roles, &mut faults).await?.0);
        }
        if !faults.is_empty() {
            return Err(super::Diagnostics::of(faults).placed(&file.places).into());
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(RolesError::Unsettled { database: open.database.clone(), left }),
        }
    }

    /// The changes of a step for the dry run, without those that need rights from another transaction.
    fn rehearsed<'a>(&'a self, step: &DatabaseTransaction<'a>) -> DatabaseTransaction<'a> {
        let is_bound = |role: &str| {
            self.changes.iter().any(|change| matches!(change, Change::Bind { .. }) && change.role() == role)
        };
        // The demotion of an administrator commits in `postgres` first; without it, `DROP OWNED` is refused in the dry run.
        let waits = |change: &Change| matches!(change, Change::Clear { .. }) && is_bound(change.role());
        let changes = step.changes.iter().copied().filter(|change| !waits(change)).collect();
        DatabaseTransaction { database: step.database, changes }
    }

    /// For a dry run: creates roles with the new names, which no other session sees, as the transaction is rolled back.
    async fn stand_in(&self, open: &DatabaseSession) -> Result<(), RolesError> {
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by_key(|change| rank(change));
        for change in changes {
            match change {
                Change::Create(Principal { role, .. }) | Change::CreateGroup { role } => {
                    open.run(&format!("CREATE ROLE {} NOLOGIN", quoted(role))).await?;
                }
                Change::Rename { .. } => {
                    for statement in self.statements(change) {
                        open.run(&statement).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Tells which roles the open transaction has made.
async fn keep_made(
    open: &DatabaseSession,
    step: &DatabaseTransaction<'_>,
    made: &dyn MadeRoles,
) -> Result<(), RolesError> {
    let is_made = |change: &&&Change| matches!(change, Change::Create(_) | Change::CreateGroup { .. });
    let names: Vec<&str> = step.changes.iter().filter(is_made).map(|change| change.role()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let numbers = "SELECT rolname::text, oid FROM pg_catalog.pg_roles WHERE rolname::text = ANY($1)";
    let rows = open.query(numbers, &[&names]).await?;
    let roles = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    made.keep(&roles).await.map_err(|source| RolesError::NotKept { source })
}

/// A session to write with. It waits for others, though not for ever.
async fn open(server: &ServerSessions, database: &str) -> Result<DatabaseSession, RolesError> {
    let open = server.open(database).await?;
    open.run(LOCK_TIMEOUT).await?;
    Ok(open)
}

/// The order within a transaction.
fn rank(change: &Change) -> u8 {
    match change {
        // First, because it makes a name free that a created role may take.
        Change::Rename { .. } => 0,
        Change::Create(_) | Change::CreateGroup { .. } => 1,
        Change::Bind { .. } | Change::ForbidLogin { .. } => 2,
        // The owner of a database may create schemas, and the owner of a schema objects.
        Change::Own(ownership) => match ownership.kind {
            ObjectKind::Database => 3,
            ObjectKind::Schema => 4,
            _ => 5,
        },
        Change::Revoke(_) | Change::RevokeDefault(_) => 6,
        Change::Grant(_) => 7,
        // An owner of new objects in a schema must be allowed to create them.
        Change::GrantDefault(_) => 8,
        Change::Leave { .. } => 9,
        Change::Join { .. } | Change::AlterMembership { .. } => 10,
        Change::Clear { .. } => 11,
        Change::Drop { .. } => 12,
    }
}

/// A part of a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Roles are made and renamed.
    Roles,
    /// Owners change.
    Owners,
    /// Privileges are granted and revoked, by the owners.
    Privileges,
    /// Memberships change, roles are dropped.
    Rest,
}

impl Phase {
    fn of(change: &Change) -> Self {
        match rank(change) {
            0..=2 => Self::Roles,
            3..=5 => Self::Owners,
            6..=8 => Self::Privileges,
            _ => Self::Rest,
        }
    }
}
