//! Which resource a role of a server belongs to.
//!
//! A resource with the policy `apply` holds the roles that it names: they are in its status before the server is changed, so
//! that a new leader knows them. What is written there may reach other resources late, so the holdings of this process count,
//! too. Two names of one server are one server if PostgreSQL's system identifier says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// A resource, and what it asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// `metadata.uid`.
    pub(crate) uid: String,
    /// When it was made, in seconds: of two resources that name a role, the older one gets it.
    pub(crate) created: i64,
    /// `NAMESPACE/NAME`.
    pub(crate) name: String,
    pub(crate) server: ServerNames,
    /// The roles that it names, each with the id of its principal if it names one.
    pub(crate) wanted: BTreeMap<String, Option<Uuid>>,
    /// The roles that are its own.
    pub(crate) held: BTreeSet<String>,
    /// Whether it changes the server. A resource that only plans takes no role, and keeps those that it had and still names.
    pub(crate) applies: bool,
}

/// How a server is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerNames {
    /// Host and port of each of its hosts, in lower case.
    pub(crate) endpoints: BTreeSet<String>,
    /// PostgreSQL's system identifier, if it could be read.
    pub(crate) identifier: Option<String>,
}

/// A role that another resource has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The role, as the refused resource names it.
    pub(crate) role: String,
    /// The other role's name, where it is another role of the same principal.
    pub(crate) as_role: Option<String>,
    /// `NAMESPACE/NAME` of the other resource.
    pub(crate) owner: String,
}

impl ServerNames {
    fn is(&self, other: &Self) -> bool {
        let same_identifier = self.identifier.is_some() && self.identifier == other.identifier;
        same_identifier || !self.endpoints.is_disjoint(&other.endpoints)
    }
}

impl Claimant {
    /// The roles of this resource's server that are another resource's: name → the other resource. The principal of each
    /// is in `principals`.
    fn foreign<'a>(&self, others: &'a [Claimant]) -> Foreign<'a> {
        let mut foreign = Foreign::default();
        for other in others.iter().filter(|other| other.uid != self.uid && other.server.is(&self.server)) {
            let names = other.wanted.keys().chain(&other.held).collect::<BTreeSet<_>>();
            for role in names.into_iter().filter(|role| other.goes_before(self, role)) {
                foreign.roles.insert(role, &other.name);
                if let Some(id) = other.wanted.get(role).copied().flatten() {
                    foreign.principals.insert(id, (role, &other.name));
                }
            }
        }
        foreign
    }

    /// Whether a role is this resource's rather than another's that may name it, too.
    fn goes_before(&self, other: &Self, role: &str) -> bool {
        let is_older = (self.created, &self.name) < (other.created, &other.name);
        match (self.held.contains(role), other.held.contains(role)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => is_older,
            (false, false) => self.applies && is_older,
        }
    }
}

/// Roles of other resources.
#[derive(Debug, Default)]
pub(crate) struct Foreign<'a> {
    roles: BTreeMap<&'a str, &'a str>,
    principals: BTreeMap<Uuid, (&'a str, &'a str)>,
}

impl Foreign<'_> {
    /// The roles that the resource may not have.
    fn conflicts(&self, wanted: &BTreeMap<String, Option<Uuid>>) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (role, principal) in wanted {
            if let Some(owner) = self.roles.get(&**role) {
                let owner = (*owner).to_owned();
                conflicts.push(Conflict { role: role.clone(), as_role: None, owner });
            } else if let Some((other, owner)) = principal.and_then(|id| self.principals.get(&id)) {
                let (other, owner) = ((*other).to_owned(), (*owner).to_owned());
                conflicts.push(Conflict { role: role.clone(), as_role: Some(other), owner });
            }
        }
        conflicts
    }
}

/// The holdings of the resources that this process has looked at.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one insertion or removal: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// Why the resource gets nothing; empty: it has what it names.
    pub(crate) conflicts: Vec<Conflict>,
    /// The server's roles that no plan of the resource may touch: name → the resource that has it.
    pub(crate) foreign: BTreeMap<String, String>,
}

impl Claims {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        guard(&self.held)
    }

    /// Gives a resource all the roles that it names, or none. `others` are the resources of the cluster; the roles of one
    /// that is gone are free.
    pub(crate) fn claim(&self, me: &Claimant, mut others: Vec<Claimant>) -> Claimed {
        // Held over the decision: of two resources that are looked at at the same time, the second one sees the first.
        let mut held = self.held();
        held.retain(|uid, _| *uid == me.uid || others.iter().any(|other| other.uid == *uid));
        for other in &mut others {
            other.held.extend(held.get(&other.uid).into_iter().flatten().cloned());
        }
        let mut me = me.clone();
        me.held.extend(held.get(&me.uid).into_iter().flatten().cloned());
        let foreign = me.foreign(&others);
        let conflicts = foreign.conflicts(&me.wanted);
        if conflicts.is_empty() && me.applies {
            held.insert(me.uid.clone(), me.wanted.keys().cloned().collect());
        } else if let Some(held) = held.get_mut(&me.uid).filter(|_| !me.applies) {
            held.retain(|role| me.wanted.contains_key(role));
        }
        let foreign =
            foreign.roles.iter().map(|(role, owner)| ((*role).to_owned(), (*owner).to_owned())).collect();
        Claimed { conflicts, foreign }
    }
}

#[cfg(test)]
mod tests;
