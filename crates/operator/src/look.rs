//! One look at a resource: its server is compared with it, and changed if the resource says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgentra_connect::Target;
use pgentra_roles::{Change, Options, Plan, RolesDrop, RolesError, ServerSessions, Sign};

use crate::claimants::{claimant, read};
use crate::claims::{Claimant, Claims};
use crate::failure::LookFailure;
use crate::resource::{Deletion, PostgresRoles, PostgresRolesStatus, RoleStatus, RolesPolicy};
use crate::servers::{AllowedServers, names};

/// The time for each part of what a look asks of a server.
const SERVER_TIME: Duration = Duration::from_secs(120);
/// The most lines of a plan in a status.
const PLAN_LINES: usize = 100;
/// The longest line of a plan in a status, in characters.
const PLAN_LINE: usize = 300;

/// What is looked at.
pub(crate) struct Look<'a> {
    pub(crate) resource: &'a PostgresRoles,
    pub(crate) servers: &'a AllowedServers,
    pub(crate) claims: &'a Claims,
    /// Every other resource of the cluster.
    pub(crate) others: Vec<Claimant>,
}

/// What was found and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookOutcome {
    /// The server is as the resource says.
    NoDifference,
    /// The server was changed, and is as the resource says.
    Applied(PlanSummary),
    /// The server differs, and the resource only plans.
    Differences(PlanSummary),
}

/// Changes in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PlanSummary {
    pub(crate) counts: [usize; 3],
    pub(crate) lines: Vec<String>,
}

impl PlanSummary {
    fn of<'a>(changes: impl Iterator<Item = &'a Change>) -> Self {
        let mut summary = Self::default();
        for change in changes {
            let at = match change.sign() {
                Sign::Add => 0,
                Sign::Alter => 1,
                Sign::Remove => 2,
            };
            summary.counts[at] += 1;
            summary.lines.push(shortened(&change.to_string()));
        }
        summary
    }

    /// The changes in one line, as an event has it.
    pub(crate) fn line(&self) -> String {
        let [added, changed, removed] = self.counts;
        format!("{added} added, {changed} changed, {removed} removed: {}", self.lines.join("; "))
    }

    /// How many changes there are.
    pub(crate) fn count(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The lines that a status has room for.
    fn for_status(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.lines.iter().take(PLAN_LINES).cloned().collect();
        if self.lines.len() > PLAN_LINES {
            lines.push(format!("… and {} more", self.lines.len() - PLAN_LINES));
        }
        lines
    }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(PLAN_LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// What a look knows of the resource.
pub(crate) struct Prepared {
    file: pgentra_roles::RolesFile,
    sessions: ServerSessions,
    foreign: BTreeMap<String, String>,
    /// Roles of the resource that it does not name any more.
    left: Vec<RoleStatus>,
}

impl Look<'_> {
    /// Reads the resource, asks the server which one it is, and claims the roles: they are in the status then.
    ///
    /// # Errors
    /// Everything that is wrong with the resource; a server that it may not name or that cannot be asked; roles of other
    /// resources.
    pub(crate) async fn prepare(&self, status: &mut PostgresRolesStatus) -> Result<Prepared, LookFailure> {
        let read = read(self.resource, self.servers).map_err(|faults| LookFailure::invalid(&faults))?;
        let endpoints: Vec<String> = read.target.endpoints().iter().map(ToString::to_string).collect();
        status.server = Some(endpoints.join(","));
        self.may_name(&read.target)?;
        let sessions =
            self.servers.sessions(read.target.clone()).map_err(|error| LookFailure::connect(&error))?;
        in_time(self.identify(&sessions, status)).await?;
        let (foreign, left) = self.claim(&read.target, status)?;
        Ok(Prepared { file: read.file, sessions, foreign, left })
    }

    /// Asks the server for the number by which it is known under every name: once, and after each change of the resource.
    async fn identify(
        &self,
        sessions: &ServerSessions,
        status: &mut PostgresRolesStatus,
    ) -> Result<(), LookFailure> {
        let is_known = status.system_identifier.is_some()
            && status.observed_generation == self.resource.metadata.generation;
        if !is_known {
            let identifier = sessions.system_identifier().await.map_err(|error| LookFailure::of(&error))?;
            status.system_identifier = identifier.map(|number| number.to_string());
        }
        Ok(())
    }

    /// Claims the roles that the resource names. Returns the roles of other resources, and those that it had.
    fn claim(
        &self,
        target: &Target,
        status: &mut PostgresRolesStatus,
    ) -> Result<(BTreeMap<String, String>, Vec<RoleStatus>), LookFailure> {
        let mut me = claimant(self.resource, self.servers);
        me.server = names(target, status.system_identifier.clone());
        let claimed = self.claims.claim(&me, self.others.clone());
        if !claimed.conflicts.is_empty() {
            return Err(LookFailure::conflicts(&claimed.conflicts));
        }
        if !me.applies {
            return Ok((claimed.foreign, Vec::new()));
        }
        let before: BTreeMap<String, bool> =
            status.roles.iter().map(|role| (role.name.clone(), role.created)).collect();
        let is_left = |role: &&RoleStatus| !me.wanted.contains_key(&role.name);
        let left: Vec<RoleStatus> = status.roles.iter().filter(is_left).cloned().collect();
        let created =
            |name: &String| before.get(name).copied().unwrap_or(false) || self.claims.was_made(&me.uid, name);
        let own = me.wanted.keys().map(|name| RoleStatus { name: name.clone(), created: created(name) });
        status.roles = own.chain(left.iter().cloned()).collect();
        status.roles.sort();
        Ok((claimed.foreign, left))
    }

    fn may_name(&self, target: &Target) -> Result<(), LookFailure> {
        let forbidden = self.servers.forbidden(target);
        if forbidden.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the operator does not sign in to {}: its option --server (in the chart roles.servers) does not name it",
            forbidden.join(", ")
        );
        Err(LookFailure::settled("ServerNotAllowed", message))
    }

    /// Compares the server with the resource, and changes it if the resource says so. The status has what is found, also
    /// where that fails.
    ///
    /// # Errors
    /// Why the server could not be read, planned or changed.
    pub(crate) async fn compare(
        &self,
        prepared: &Prepared,
        status: &mut PostgresRolesStatus,
    ) -> Result<LookOutcome, LookFailure> {
        in_time(self.compare_with_server(prepared, status)).await
    }

    async fn compare_with_server(
        &self,
        prepared: &Prepared,
        status: &mut PostgresRolesStatus,
    ) -> Result<LookOutcome, LookFailure> {
        let failed = |error: RolesError| LookFailure::of(&error);
        let sessions = &prepared.sessions;
        let plan = Plan::make(sessions, &prepared.file, Options::default(), None).await.map_err(failed)?;
        let drop = RolesDrop { names: self.to_drop(&prepared.left) };
        let drop = drop.plan(sessions).await.map_err(failed)?;
        for role in plan.changes().iter().flat_map(Change::touched) {
            if let Some(owner) = prepared.foreign.get(role) {
                return Err(LookFailure::touches(role, owner));
            }
        }
        let summary = PlanSummary::of(plan.changes().iter().chain(drop.changes()));
        status.changes = i64::try_from(summary.count()).ok();
        status.plan = summary.for_status();
        if self.resource.spec.policy == RolesPolicy::Plan {
            return Ok(match summary.count() {
                0 => LookOutcome::NoDifference,
                _ => LookOutcome::Differences(summary),
            });
        }
        let applied = plan.apply(sessions).await;
        if made_roles(&applied) {
            self.made(status, plan.changes());
        }
        applied.map_err(failed)?;
        drop.apply(sessions).await.map_err(failed)?;
        // Those that are kept or dropped now are not this resource's any more.
        status.roles.retain(|role| !prepared.left.iter().any(|left| left.name == role.name));
        status.changes = Some(0);
        status.plan.clear();
        Ok(if summary.count() == 0 { LookOutcome::NoDifference } else { LookOutcome::Applied(summary) })
    }

    /// Writes down which roles the operator has made.
    fn made(&self, status: &mut PostgresRolesStatus, changes: &[Change]) {
        let made: BTreeSet<&str> =
            changes.iter().filter(|change| change.action() == "create").map(Change::role).collect();
        for role in &mut status.roles {
            role.created |= made.contains(&*role.name);
        }
        let uid = self.resource.metadata.uid.as_deref().unwrap_or_default();
        self.claims.made(uid, made.into_iter().map(str::to_owned));
    }

    /// Which of these roles are dropped: those that the operator has made, if the resource says so.
    fn to_drop(&self, roles: &[RoleStatus]) -> BTreeSet<String> {
        let spec = &self.resource.spec;
        let drops = spec.policy == RolesPolicy::Apply && spec.deletion == Deletion::Drop;
        roles.iter().filter(|role| drops && role.created).map(|role| role.name.clone()).collect()
    }

    /// Whether the server has to be changed before the resource may go.
    pub(crate) fn drops_at_deletion(&self) -> bool {
        let spec = &self.resource.spec;
        spec.policy == RolesPolicy::Apply && spec.deletion == Deletion::Drop
    }

    /// Drops the roles that the operator has made for the resource.
    ///
    /// # Errors
    /// Why they could not be dropped.
    pub(crate) async fn take_back(&self, status: &PostgresRolesStatus) -> Result<PlanSummary, LookFailure> {
        let names = self.to_drop(&status.roles);
        if names.is_empty() {
            return Ok(PlanSummary::default());
        }
        let target =
            self.servers.target(&self.resource.spec.server).map_err(|error| LookFailure::server(&error))?;
        self.may_name(&target)?;
        let sessions = self.servers.sessions(target).map_err(|error| LookFailure::connect(&error))?;
        let dropped = async {
            let plan = RolesDrop { names }.plan(&sessions).await?;
            plan.apply(&sessions).await?;
            Ok::<_, RolesError>(PlanSummary::of(plan.changes().iter()))
        };
        in_time(async { dropped.await.map_err(|error| LookFailure::of(&error)) }).await
    }
}

/// Ends what a server does not do in its time. A transaction that is open then is rolled back.
async fn in_time<T>(asked: impl Future<Output = Result<T, LookFailure>>) -> Result<T, LookFailure> {
    let answered = tokio::time::timeout(SERVER_TIME, asked).await;
    answered.unwrap_or_else(|_| Err(LookFailure::too_slow(SERVER_TIME.as_secs())))
}

/// Whether the transaction that makes roles was committed.
fn made_roles(applied: &Result<(), RolesError>) -> bool {
    match applied {
        Ok(()) => true,
        // Roles are made first, in the first database of the list.
        Err(RolesError::HalfApplied { done, .. }) => !done.is_empty(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_room_for_so_many_lines() {
        let lines = (0..103).map(|number| number.to_string()).collect();
        let summary = PlanSummary { counts: [103, 0, 0], lines };
        let shown = summary.for_status();
        assert_eq!((shown.len(), &*shown[100], summary.count()), (101, "… and 3 more", 103));
        let summary = PlanSummary { counts: [1, 0, 1], lines: vec!["+ a".to_owned(), "- b".to_owned()] };
        assert_eq!(summary.line(), "1 added, 0 changed, 1 removed: + a; - b");
        assert!(shortened(&"ä".repeat(400)).chars().count() == PLAN_LINE + 1);
    }

    #[test]
    fn roles_are_made_unless_their_transaction_failed() {
        let broken = || RolesError::NotEntra;
        assert!(made_roles(&Ok(())) && !made_roles(&Err(broken())));
        let half = |done: &[&str]| {
            let done = done.iter().map(|name| (*name).to_owned()).collect();
            Err(RolesError::HalfApplied { done, source: Box::new(broken()) })
        };
        assert!(made_roles(&half(&["postgres"])));
    }
}
