//! Matches the roles of the file with the roles of the server, and lists their differences.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use uuid::Uuid;

use super::change::{Change, Principal};
use super::fault::Diagnostic;
use super::file::{Desired, PrincipalRef};
use super::read::{Role, Roles};
use super::{Flavour, name, sql};

/// The roles of a file, matched with those of the server.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    pub(crate) changes: Vec<Change>,
    pub(crate) faults: Vec<Diagnostic>,
    /// For each role of the file, in its order, the name that it has at present.
    pub(crate) now: Vec<Option<String>>,
}

/// Matches by object id first, and by name where there is no id or no role is mapped to it.
pub(crate) fn matching(desired: &[Desired], roles: &Roles) -> Matching {
    let result = Matching { now: vec![None; desired.len()], ..Matching::default() };
    let mut matcher = Matcher { roles, desired, result, claimed: BTreeSet::new() };
    // By id first, for all of them: a role that keeps its principal and changes its name must not be taken for the role of
    // another entry that has that name in the file.
    for (number, role) in desired.iter().enumerate() {
        matcher.claim_by_id(number, role);
    }
    for (number, role) in desired.iter().enumerate() {
        matcher.match_one(number, role);
    }
    matcher.memberships();
    matcher.result
}

struct Matcher<'a> {
    roles: &'a Roles,
    desired: &'a [Desired],
    result: Matching,
    /// Names on the server that a role of the file has by its id.
    claimed: BTreeSet<String>,
}

impl<'a> Matcher<'a> {
    fn fault(&mut self, role: &Desired, message: impl Into<String>) {
        self.result.faults.push(Diagnostic { line: Some(role.line), message: message.into() });
    }

    /// The mapped roles that belong to the principal; none where the file, or the server, does not tell whose they are.
    fn roles_by_id(&self, desired: &Desired) -> Vec<&'a Role> {
        let Some(id) = id(desired.identity) else { return Vec::new() };
        self.roles.entra().iter().filter(|role| role.object_id == Some(id)).collect()
    }

    fn claim_by_id(&mut self, number: usize, desired: &Desired) {
        let found = self.roles_by_id(desired);
        let name = desired.name.as_str();
        let role = match &*found {
            [] => return,
            roles if roles.iter().any(|role| role.name == name) => name,
            [role] if self.roles.all.contains_key(name) && !self.is_renamed_away(name) => {
                let message = format!(
                    "the principal of {name} has the role {} already, and another role is called {name}; \
                     rename or drop one of them first",
                    quote::name(&role.name),
                    name = quote::name(name)
                );
                return self.fault(desired, message);
            }
            // From PostgreSQL 16 on no administrator may rename another.
            [role] if role.is_admin => {
                let message = format!(
                    "the principal of {name} is the administrator {}, and an administrator keeps its name",
                    quote::name(&role.name),
                    name = quote::name(name)
                );
                return self.fault(desired, message);
            }
            [role] => {
                self.result.changes.push(Change::Rename { from: role.name.clone(), to: name.to_owned() });
                &role.name
            }
            several => {
                let names: Vec<String> = several.iter().map(|role| quote::name(&role.name)).collect();
                let message = format!(
                    "the principal of {name} has several roles: {}; name one of them",
                    names.join(", "),
                    name = quote::name(name)
                );
                return self.fault(desired, message);
            }
        };
        self.claimed.insert(role.to_owned());
        self.result.now[number] = Some(role.to_owned());
    }

    /// Whether an earlier rename has made the name free.
    fn is_renamed_away(&self, name: &str) -> bool {
        self.result.changes.iter().any(|change| matches!(change, Change::Rename { from, .. } if from == name))
    }

    fn match_one(&mut self, number: usize, desired: &Desired) {
        let to = Principal {
            role: desired.name.to_string(),
            kind: desired.kind,
            identity: desired.identity,
            is_admin: desired.is_admin,
            is_mfa: desired.is_mfa,
        };
        if let Some(why) = sql::impossible(self.roles.flavour(), &to, true) {
            return self.fault(desired, why);
        }
        let name = desired.name.as_str();
        let by_name =
            Some(name).filter(|name| self.roles.all.contains_key(*name) && !self.claimed.contains(*name));
        let now = self.result.now[number].clone().or_else(|| by_name.map(str::to_owned));
        let Some(now) = now else {
            // No role has this name, or the role that has it is renamed by the same plan.
            return self.result.changes.push(Change::Create(to));
        };
        self.claimed.insert(now.clone());
        self.result.now[number] = Some(now.clone());
        match self.roles.named(&now) {
            Some(role) => self.compare(desired, to, role),
            None => self.adopt(desired, to, &now),
        }
    }

    /// A role that is mapped already.
    fn compare(&mut self, desired: &Desired, mut to: Principal, role: &Role) {
        let differences = match self.roles.flavour() {
            Flavour::Flexible => flexible_differences(&mut to, role),
            Flavour::Single => self.single_differences(&to, &role.name),
        };
        if differences.is_empty() {
            return;
        }
        // Mapping it to another principal could lock the only administrator out, with no session left to undo it.
        if role.name == self.roles.session_user {
            let message = format!(
                "{} is who is signed in, and is not changed by itself ({}); sign in as another administrator",
                quote::name(&role.name),
                differences.join(", ")
            );
            return self.fault(desired, message);
        }
        self.bind(desired, to, &role.name, differences.join(", "));
    }

    /// A role that exists and is not mapped to an Entra principal.
    fn adopt(&mut self, desired: &Desired, to: Principal, now: &str) {
        let is_powerful = self.roles.all.get(now).is_some_and(|any| any.is_powerful);
        // A line in a file must not hand a superuser's role, such as `postgres` or `azuresu`, to a principal.
        if is_powerful || name::is_reserved(now) || now == self.roles.session_user {
            let message = format!(
                "the role {now} may do what a superuser may; it is not mapped to a principal",
                now = quote::name(now)
            );
            return self.fault(desired, message);
        }
        if self.roles.flavour() == Flavour::Flexible && to.identity == PrincipalRef::Name {
            let message = format!(
                "the role {now} is there and not mapped: it takes an object_id to map it",
                now = quote::name(now)
            );
            return self.fault(desired, message);
        }
        let because = format!("is not mapped yet → {to}");
        self.bind(desired, to, now, because);
    }

    fn bind(&mut self, desired: &Desired, to: Principal, now: &str, because: String) {
        if let Some(why) = sql::impossible(self.roles.flavour(), &to, self.roles.can_update) {
            return self.fault(desired, why);
        }
        let any = self.roles.all.get(now);
        self.result.changes.push(Change::Bind {
            to,
            because,
            is_marked: any.is_some_and(|any| any.member_of.contains("azure_ad_user")),
            comment: any.and_then(|any| any.comment.clone()),
        });
    }

    /// What a role is bound to is nothing that Single Server tells, so the comment has to.
    fn single_differences(&self, to: &Principal, now: &str) -> Vec<String> {
        let comment = self.roles.all.get(now).and_then(|any| any.comment.as_deref());
        if to.identity == PrincipalRef::Name || sql::is_bound(comment, to.identity) {
            return Vec::new();
        }
        vec![format!("unknown whose it is → {to}")]
    }

    /// Who is a member of what, by the names that roles will have.
    fn memberships(&mut self) {
        let renamed: BTreeMap<&str, &str> = self
            .result
            .now
            .iter()
            .zip(self.desired)
            .filter_map(|(now, desired)| Some((now.as_deref()?, desired.name.as_str())))
            .collect();
        // Renames run first, so memberships are compared and changed under the new names.
        let later = |name: &str| renamed.get(name).copied().unwrap_or(name).to_owned();
        let known: BTreeSet<String> = self
            .roles
            .all
            .keys()
            .map(|name| later(name))
            .chain(self.desired.iter().map(|desired| desired.name.to_string()))
            .collect();
        let (mut changes, mut faults) = (Vec::new(), Vec::new());
        for (desired, now) in self.desired.iter().zip(&self.result.now) {
            let role = desired.name.to_string();
            let has: BTreeSet<String> = now
                .as_ref()
                .and_then(|now| self.roles.all.get(now))
                .into_iter()
                .flat_map(|any| &any.member_of)
                // Reserved roles mark the mapping and administrators; both are compared elsewhere.
                .filter(|group| group.starts_with("pg_") || !name::is_reserved(group))
                .map(|group| later(group))
                .collect();
            for group in desired.member_of.iter().filter(|group| !known.contains(*group)) {
                let message = format!(
                    "{role} is to be a member of {group}, and there is no such role",
                    role = quote::name(&role),
                    group = quote::name(group)
                );
                faults.push(Diagnostic { line: Some(desired.line), message });
            }
            let join = |group: &String| Change::Join { role: role.clone(), group: group.clone() };
            let leave = |group: &String| Change::Leave { role: role.clone(), group: group.clone() };
            changes.extend(has.difference(&desired.member_of).map(leave));
            changes.extend(desired.member_of.difference(&has).map(join));
        }
        self.result.changes.extend(changes);
        self.result.faults.extend(faults);
    }
}

/// How a mapped role differs. Where the file does not say whose it is, it stays whose it is.
fn flexible_differences(to: &mut Principal, role: &Role) -> Vec<String> {
    let mut differences = Vec::new();
    match (id(to.identity), role.object_id) {
        // Written out, or the bind of another attribute would look the name up again and could find another principal.
        (None, Some(id)) => to.identity = PrincipalRef::ObjectId(id),
        (Some(wanted), Some(id)) if wanted != id => differences.push(format!("object id {id} → {wanted}")),
        (Some(wanted), None) => differences.push(format!("mapped by its name → object id {wanted}")),
        _ => {}
    }
    if let Some(kind) = role.kind.filter(|kind| *kind != to.kind) {
        differences.push(format!("kind {kind} → {}", to.kind));
    }
    for (is, wanted, word) in
        [(role.is_admin, to.is_admin, "administrator"), (role.is_mfa, to.is_mfa, "second factor")]
    {
        let yes = |is| if is { "yes" } else { "no" };
        if is != wanted {
            differences.push(format!("{word} {} → {}", yes(is), yes(wanted)));
        }
    }
    differences
}

fn id(identity: PrincipalRef) -> Option<Uuid> {
    match identity {
        PrincipalRef::ObjectId(id) | PrincipalRef::ClientId(id) => Some(id),
        PrincipalRef::Name => None,
    }
}
