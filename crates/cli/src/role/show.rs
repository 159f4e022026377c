//! Renders roles and plans as text and JSON.

use std::collections::BTreeSet;

use pgentra_connect::quote;
use pgentra_roles::{Change, Note, Plan, Roles, Sign};
use serde::Serialize;

use crate::table::{Need, Row as Values, list};
use crate::text::{Text, coloured, faint, text};

/// The roles in psql's table format; with `orphans`, a column for roles whose principal no longer
/// exists. With a `width`, it has what fits and what differs.
pub(crate) fn table(roles: &Roles, orphans: Option<&BTreeSet<String>>, width: Option<usize>) -> Text {
    let mut columns = vec![
        ("role", Need::Always),
        ("kind", Need::Always),
        ("object id", Need::IfItFits),
        ("tenant", Need::IfRowsDiffer),
        ("admin", Need::Always),
        ("mfa", Need::IfItFits),
        ("source", Need::IfRowsDiffer),
    ];
    columns.extend(orphans.map(|_| ("orphan", Need::Always)));
    let flag = |is: bool| Some(if is { "yes" } else { "no" }.to_owned());
    let rows: Vec<Values> = roles
        .entra()
        .iter()
        .map(|role| {
            let mut row = vec![
                Some(role.name.clone()),
                role.kind.map(|kind| kind.to_string()),
                role.object_id.map(|id| id.to_string()),
                role.tenant.map(|id| id.to_string()),
                flag(role.is_admin),
                flag(role.is_mfa),
                Some(role.source.as_str().to_owned()),
            ];
            row.extend(orphans.map(|orphans| flag(orphans.contains(&role.name))));
            row
        })
        .collect();
    list(&columns, &rows, width)
}

/// The document of `pgentra role list -o json`.
#[derive(Serialize)]
pub(crate) struct List<'a> {
    /// `flexible` or `single`.
    flavour: String,
    roles: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    /// `service`, `user` or `group`; null on Single Server, which does not have it.
    kind: Option<&'static str>,
    object_id: Option<String>,
    tenant_id: Option<String>,
    admin: bool,
    mfa: bool,
    source: &'static str,
    /// Whether the principal no longer exists; null if it was not looked up.
    orphan: Option<bool>,
}

impl<'a> List<'a> {
    pub(crate) fn of(roles: &'a Roles, orphans: Option<&BTreeSet<String>>) -> Self {
        let rows = roles.entra().iter().map(|role| Row {
            name: &role.name,
            kind: role.kind.map(|kind| kind.as_str()),
            object_id: role.object_id.map(|id| id.to_string()),
            tenant_id: role.tenant.map(|id| id.to_string()),
            admin: role.is_admin,
            mfa: role.is_mfa,
            source: role.source.as_str(),
            orphan: orphans.map(|orphans| orphans.contains(&role.name)),
        });
        Self { flavour: roles.flavour().to_string(), roles: rows.collect() }
    }
}

/// A plan as lines with `+`, `~` and `-`, with colour on a terminal that has it.
pub(crate) fn difference(plan: &Plan, applied: bool) -> Text {
    let mut text = Text::default();
    for change in plan.changes() {
        let colour = match change.sign() {
            Sign::Add => "32",
            Sign::Alter => "33",
            Sign::Remove => "31",
        };
        text.push(coloured(colour, &change.to_string()));
        text.push("\n");
    }
    for note in plan.notes() {
        text.push(faint(&format!("! {note}")));
        text.push("\n");
    }
    for warning in warnings(plan) {
        text.push(text![coloured("33", &format!("! {warning}")), "\n"]);
    }
    text.push(sum(plan, applied));
    text
}

/// Effects on clients that sign in now: a renamed role no longer exists under its old name.
fn warnings(plan: &Plan) -> impl Iterator<Item = String> {
    plan.changes().iter().filter_map(|change| match change {
        Change::Rename { from, to, .. } => Some(format!(
            "clients that sign in as {} have to sign in as {}",
            quote::name(from),
            quote::name(to)
        )),
        _ => None,
    })
}

pub(crate) fn sum(plan: &Plan, applied: bool) -> String {
    let count = |sign| plan.changes().iter().filter(|change| change.sign() == sign).count();
    let (added, altered, removed) = (count(Sign::Add), count(Sign::Alter), count(Sign::Remove));
    match (plan.changes().is_empty(), applied) {
        (true, _) => "Nothing to do: the server is as the file says.\n".to_owned(),
        (false, true) => format!("Done: {added} added, {altered} changed, {removed} removed.\n"),
        (false, false) => format!("{added} to add, {altered} to change, {removed} to remove.\n"),
    }
}

/// The document of the commands that change roles, with `-o json`.
#[derive(Serialize)]
pub(crate) struct Difference<'a> {
    /// 1; a document in which a key is gone, or means something else, has another number.
    version: u32,
    /// `flexible` or `single`.
    flavour: String,
    /// Whether the changes were made.
    applied: bool,
    changes: Vec<ChangeLine<'a>>,
    notes: Vec<Remark<'a>>,
    /// Effects on clients that sign in now.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ChangeLine<'a> {
    /// `+`, `~` or `-`.
    sign: &'static str,
    action: &'static str,
    role: &'a str,
    /// Null for changes of the whole server.
    database: Option<&'a str>,
    text: String,
    sql: Vec<String>,
}

#[derive(Serialize)]
struct Remark<'a> {
    /// `not-in-file`, `joins`, `orphan` or `no-directory`.
    kind: &'static str,
    role: Option<&'a str>,
    /// The database of `joins`.
    database: Option<&'a str>,
    text: String,
}

impl<'a> Difference<'a> {
    pub(crate) fn of(plan: &'a Plan, applied: bool) -> Self {
        let step = |change: &'a Change| ChangeLine {
            sign: change.sign().as_str(),
            action: change.action(),
            role: change.role(),
            database: change.database(),
            text: change.to_string().split_off(2),
            sql: plan.statements(change),
        };
        let remark = |note: &'a Note| {
            let (kind, role, database) = match note {
                Note::NotInFile(role) => ("not-in-file", Some(&**role), None),
                Note::Joins { role, database, .. } => ("joins", Some(&**role), Some(&**database)),
                Note::Orphan(role) => ("orphan", Some(&**role), None),
                _ => ("no-directory", None, None),
            };
            Remark { kind, role, database, text: note.to_string() }
        };
        Self {
            version: 1,
            flavour: plan.flavour().to_string(),
            applied,
            changes: plan.changes().iter().map(step).collect(),
            notes: plan.notes().iter().map(remark).collect(),
            warnings: warnings(plan).collect(),
        }
    }
}
