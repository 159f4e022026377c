//! Matches the roles of the file with the roles of the server, and lists their differences.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;
use uuid::Uuid;

use super::change::{Change, JoinOptions, OptionsChange, Principal};
use super::desired::{Desired, PrincipalRef};
use super::fault::Diagnostic;
use super::membership::{MembershipOptions, OPTIONS_SINCE, yes};
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
        self.result.faults.push(Diagnostic { line: Some(role.line), path: None, message: message.into() });
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
        if desired.is_group_role() {
            return self.match_group(number, desired);
        }
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
        let now = self.result.now[number].clone().or_else(|| self.by_name(desired));
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

    /// The role with the name of the file, unless it is the role of another entry.
    fn by_name(&self, desired: &Desired) -> Option<String> {
        let name = desired.name.as_str();
        let is_free = self.roles.all.contains_key(name) && !self.claimed.contains(name);
        is_free.then(|| name.to_owned())
    }

    /// A role without login.
    fn match_group(&mut self, number: usize, desired: &Desired) {
        let role = desired.name.to_string();
        let Some(now) = self.by_name(desired) else {
            return self.result.changes.push(Change::CreateGroup { role });
        };
        self.claimed.insert(now.clone());
        self.result.now[number] = Some(now.clone());
        let Some(any) = self.roles.all.get(&now) else { return };
        let called = quote::name(&now);
        if self.roles.named(&now).is_some() {
            let message = format!(
                "the role {called} is mapped to a principal, and one with login = false is not; drop it first"
            );
            self.fault(desired, message);
        } else if any.is_powerful || now == self.roles.session_user {
            let message = format!(
                "the role {called} may do what a superuser may, or is who is signed in; it stays as it is"
            );
            self.fault(desired, message);
        } else if any.can_login {
            self.result.changes.push(Change::ForbidLogin { role });
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
            is_marked: any.is_some_and(|any| any.is_member("azure_ad_user")),
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
            let any = now.as_ref().and_then(|now| self.roles.all.get(now));
            let has: BTreeMap<String, MembershipOptions> = any
                .into_iter()
                .flat_map(|any| &any.member_of)
                // Reserved roles mark the mapping and administrators; both are compared elsewhere.
                .filter(|(group, _)| group.starts_with("pg_") || !name::is_reserved(group))
                .map(|(group, options)| (later(group), *options))
                .collect();
            let mut fault = |message: String| {
                faults.push(Diagnostic { line: Some(desired.line), path: None, message });
            };
            let role = desired.name.to_string();
            for (group, options) in &desired.member_of {
                let called = (quote::name(&role), quote::name(group));
                if !known.contains(group) {
                    fault(format!(
                        "{} is to be a member of {}, and there is no such role",
                        called.0, called.1
                    ));
                }
                if self.roles.version < OPTIONS_SINCE && !(options.inherit && options.set) {
                    fault(format!(
                        "{} is a member of {}: inherit and set can be false from PostgreSQL 16 on",
                        called.0, called.1
                    ));
                }
            }
            let is_noinherit = any.is_some_and(|any| any.is_noinherit);
            changes.extend(membership_changes(&role, &has, &desired.member_of, is_noinherit));
        }
        self.result.changes.extend(changes);
        self.result.faults.extend(faults);
    }
}

fn membership_changes(
    role: &str,
    has: &BTreeMap<String, MembershipOptions>,
    wanted: &BTreeMap<String, MembershipOptions>,
    is_noinherit: bool,
) -> Vec<Change> {
    let (role, mut changes) = (role.to_owned(), Vec::new());
    for group in has.keys().filter(|group| !wanted.contains_key(*group)) {
        changes.push(Change::Leave { role: role.clone(), group: group.clone() });
    }
    for (group, to) in wanted {
        let (role, group) = (role.clone(), group.clone());
        match has.get(&group) {
            None => {
                let options = JoinOptions { options: *to, is_noinherit };
                changes.push(Change::Join { role, group, options });
            }
            Some(from) if from != to => {
                let options = OptionsChange { from: *from, to: *to };
                changes.push(Change::AlterMembership { role, group, options });
            }
            Some(_) => {}
        }
    }
    changes
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
