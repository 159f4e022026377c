//! One look at a resource: its server is compared with it, and changed if the resource says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgentra_connect::{Target, quote};
use pgentra_roles::{Change, Options, Plan, RolesDrop, RolesError, ServerSessions, Sign};

use crate::claimants::{claimant, read, wanted};
use crate::claims::{Claimant, Claims};
use crate::failure::LookFailure;
use crate::made::MadeRecord;
use crate::resource::{Deletion, PostgresRoles, PostgresRolesStatus, RoleStatus, RolesPolicy};
use crate::servers::{AllowedServers, names};
use crate::status_file::StatusFile;

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

/// A look that reached its end.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) outcome: LookOutcome,
    /// Why roles that are to be dropped are still there.
    pub(crate) not_dropped: Option<LookFailure>,
}

/// What became of roles that are to be dropped.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    /// What was dropped.
    pub(crate) summary: PlanSummary,
    /// The roles that are still there.
    left: BTreeSet<String>,
    pub(crate) failure: Option<LookFailure>,
}

impl Drops {
    fn failed(&mut self, name: String, failure: LookFailure) {
        self.left.insert(name);
        self.failure = Some(match self.failure.take() {
            None => failure,
            Some(first) => first.and(&failure),
        });
    }
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

    fn add(&mut self, more: Self) {
        for (count, more) in self.counts.iter_mut().zip(more.counts) {
            *count += more;
        }
        self.lines.extend(more.lines);
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
            status.roles.retain(|role| me.wanted.contains_key(&role.name));
            return Ok((claimed.foreign, Vec::new()));
        }
        let (mut own, left): (Vec<_>, Vec<_>) =
            status.roles.drain(..).partition(|role| me.wanted.contains_key(&role.name));
        let is_new = |name: &&String| !own.iter().any(|role| role.name == **name);
        let new: Vec<_> = me.wanted.keys().filter(is_new).map(|name| RoleStatus::found(name)).collect();
        own.extend(new);
        status.roles = own.into_iter().chain(left.iter().cloned()).collect();
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
    /// where that fails. It is written to `file` before roles are made or get another name.
    ///
    /// # Errors
    /// Why the server could not be read, planned or changed.
    pub(crate) async fn compare(
        &self,
        prepared: Prepared,
        status: &mut PostgresRolesStatus,
        file: &StatusFile,
    ) -> Result<Looked, LookFailure> {
        in_time(self.compare_with_server(prepared, status, file)).await
    }

    async fn compare_with_server(
        &self,
        mut prepared: Prepared,
        status: &mut PostgresRolesStatus,
        file: &StatusFile,
    ) -> Result<Looked, LookFailure> {
        let failed = |error: RolesError| LookFailure::of(&error);
        let sessions = &prepared.sessions;
        let plan = Plan::make(sessions, &prepared.file, Options::default(), None).await.map_err(failed)?;
        let mut summary = PlanSummary::of(plan.changes().iter());
        status.changes = i64::try_from(summary.count()).ok();
        status.plan = summary.for_status();
        for role in plan.changes().iter().flat_map(Change::touched) {
            if let Some(owner) = prepared.foreign.get(role) {
                return Err(LookFailure::touches(role, owner));
            }
        }
        if self.resource.spec.policy == RolesPolicy::Plan {
            let outcome = match summary.count() {
                0 => LookOutcome::NoDifference,
                _ => LookOutcome::Differences(summary),
            };
            return Ok(Looked { outcome, not_dropped: None });
        }
        let renamed = renames(plan.changes());
        if carry_over(&renamed, &mut status.roles) {
            file.write(status).await.map_err(|error| LookFailure::unwritten(&error))?;
        }
        MadeRecord::apply(&plan, sessions, (status, file)).await.map_err(failed)?;
        // Roles are dropped last: what they own may have got another owner now. What cannot be dropped stops nothing else.
        prepared.left.retain(|role| !renamed.iter().any(|(from, _)| *from == role.name));
        let drops = self.drop_roles(sessions, &prepared.left, status).await;
        summary.add(drops.summary);
        // Those that are kept or dropped now are not this resource's any more.
        let wanted = wanted(&prepared.file);
        status.roles.retain(|role| wanted.contains_key(&role.name) || drops.left.contains(&role.name));
        let outcome = match summary.count() {
            0 => LookOutcome::NoDifference,
            _ => LookOutcome::Applied(summary),
        };
        Ok(Looked { outcome, not_dropped: drops.failure })
    }

    /// Which of these roles are dropped: those that the operator has made, if the resource says so.
    fn to_drop(&self, roles: &[RoleStatus]) -> BTreeMap<String, u32> {
        let drops = self.drops_at_deletion();
        let made = roles.iter().filter(|_| drops).filter_map(|role| Some((role.name.clone(), role.made()?)));
        made.collect()
    }

    /// Whether the server has to be changed before the resource may go.
    pub(crate) fn drops_at_deletion(&self) -> bool {
        let spec = &self.resource.spec;
        spec.policy == RolesPolicy::Apply && spec.deletion == Deletion::Drop
    }

    /// Drops the roles that the operator has made for the resource.
    ///
    /// # Errors
    /// The server cannot be asked. The outcome has what could not be dropped.
    pub(crate) async fn take_back(&self, status: &mut PostgresRolesStatus) -> Result<Drops, LookFailure> {
        let roles = status.roles.clone();
        if self.to_drop(&roles).is_empty() {
            return Ok(Drops::default());
        }
        let target =
            self.servers.target(&self.resource.spec.server).map_err(|error| LookFailure::server(&error))?;
        self.may_name(&target)?;
        let sessions = self.servers.sessions(target).map_err(|error| LookFailure::connect(&error))?;
        in_time(async { Ok(self.drop_roles(&sessions, &roles, status).await) }).await
    }

    /// Drops those of the roles that are to be dropped, each by itself. The status has those that are left as its plan.
    async fn drop_roles(
        &self,
        sessions: &ServerSessions,
        roles: &[RoleStatus],
        status: &mut PostgresRolesStatus,
    ) -> Drops {
        let mut drops = Drops::default();
        for (name, oid) in self.to_drop(roles) {
            let dropped = async {
                let plan = RolesDrop { roles: [(name.clone(), oid)].into() }.plan(sessions).await?;
                plan.apply(sessions).await?;
                Ok::<_, RolesError>(PlanSummary::of(plan.changes().iter()))
            };
            match dropped.await {
                Ok(summary) => drops.summary.add(summary),
                Err(error) => drops.failed(name, LookFailure::of(&error)),
            }
        }
        status.changes = i64::try_from(drops.left.len()).ok();
        let lines = drops.left.iter().map(|name| shortened(&format!("- role {}", quote::name(name))));
        status.plan = PlanSummary { counts: [0; 3], lines: lines.collect() }.for_status();
        drops
    }
}

/// The roles that get another name: from, to.
fn renames(changes: &[Change]) -> Vec<(String, String)> {
    let renames = changes.iter().filter_map(|change| match change {
        Change::Rename { from, to, .. } => Some((from.clone(), to.clone())),
        _ => None,
    });
    renames.collect()
}

/// A role that gets another name stays the role that the operator has made, or has not made. Returns whether this changed
/// the list. The entry of the name before stays: only a role with that number is dropped, and it has the new name then.
fn carry_over(renames: &[(String, String)], roles: &mut [RoleStatus]) -> bool {
    let before = roles.to_vec();
    for (from, to) in renames {
        let from = before.iter().find(|role| role.name == *from);
        if let Some(role) = roles.iter_mut().find(|role| role.name == *to) {
            let (created, oid) = from.map_or((false, None), |from| (from.created, from.oid));
            (role.created, role.oid) = (created, oid);
        }
    }
    roles != before
}

/// Ends what a server does not do in its time. A transaction that is open then is rolled back.
async fn in_time<T>(asked: impl Future<Output = Result<T, LookFailure>>) -> Result<T, LookFailure> {
    let answered = tokio::time::timeout(SERVER_TIME, asked).await;
    answered.unwrap_or_else(|_| Err(LookFailure::too_slow(SERVER_TIME.as_secs())))
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

    fn made(name: &str, oid: i64) -> RoleStatus {
        RoleStatus { name: name.to_owned(), created: true, oid: Some(oid) }
    }

    #[test]
    fn a_role_with_another_name_is_still_the_role_that_was_made() {
        let rename = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let mut roles = vec![made("before", 7), RoleStatus::found("now"), made("other", 8)];
        assert!(carry_over(&[rename("before", "now")], &mut roles));
        assert_eq!(roles, [made("before", 7), made("now", 7), made("other", 8)]);
        // Again, as after a change that was rolled back.
        assert!(!carry_over(&[rename("before", "now")], &mut roles));
        // Two names that are exchanged, and a role that was there before the resource.
        let mut roles = vec![made("a", 1), RoleStatus::found("b")];
        assert!(carry_over(&[rename("a", "b"), rename("b", "a")], &mut roles));
        assert_eq!(roles, [RoleStatus::found("a"), made("b", 1)]);
        let mut roles = vec![made("now", 9)];
        assert!(carry_over(&[rename("strange", "now")], &mut roles));
        assert_eq!(roles, [RoleStatus::found("now")]);
    }

    #[test]
    fn all_that_is_not_dropped_is_told_with_the_first_reason() {
        let mut drops = Drops::default();
        drops.failed("a".to_owned(), LookFailure::settled("RoleInUse", "a owns a table"));
        drops.failed("b".to_owned(), LookFailure::settled("RoleNotDropped", "b is signed in"));
        let failure = drops.failure.unwrap();
        assert_eq!((failure.reason, &*failure.message), ("RoleInUse", "a owns a table; b is signed in"));
        assert_eq!(drops.left, ["a".to_owned(), "b".to_owned()].into());
    }
}
