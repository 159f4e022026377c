//! The rights that the session's user takes for the length of a transaction, and gives back at its end.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;

use super::access::{DATABASE_OWNER, Memberships, SessionRights};
use super::change::{Change, Ownership};
use super::fault::Diagnostic;
use super::name::quoted;
use super::object::ObjectKind;
use super::owners::Owners;

/// What a transaction in one database takes and gives back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loan {
    /// Memberships of the session's user.
    memberships: Memberships,
    /// Schemas and the new owners of their objects, which may not create objects there: PostgreSQL asks for that.
    creates: BTreeSet<(String, String)>,
}

/// What a loan is made of: one database, as it is before the changes.
pub(crate) struct Lender<'a> {
    pub(crate) access: &'a SessionRights,
    pub(crate) owners: &'a Owners,
    /// The names that roles will have, by those that they have.
    pub(crate) renamed: &'a BTreeMap<&'a str, &'a str>,
    pub(crate) changes: &'a [Change],
}

impl Loan {
    pub(crate) fn is_empty(&self) -> bool {
        self.memberships.is_empty() && self.creates.is_empty()
    }

    /// The roles that the session's user joins.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        self.memberships.iter().map(|membership| &*membership.role)
    }

    pub(crate) fn begin(&self) -> Vec<String> {
        self.memberships.iter().map(|membership| membership.begin()).collect()
    }

    pub(crate) fn begin_moves(&self) -> Vec<String> {
        self.create_statements("GRANT", "TO")
    }

    pub(crate) fn end_moves(&self) -> Vec<String> {
        self.create_statements("REVOKE", "FROM")
    }

    pub(crate) fn end(&self) -> Vec<String> {
        self.memberships.iter().rev().map(|membership| membership.end()).collect()
    }

    fn create_statements(&self, verb: &str, preposition: &str) -> Vec<String> {
        let statement = |(schema, role): &(String, String)| {
            format!("{verb} CREATE ON SCHEMA {} {preposition} {}", quoted(schema), quoted(role))
        };
        self.creates.iter().map(statement).collect()
    }
}

impl Lender<'_> {
    /// What the changes take. What cannot be had for a change of an owner is a fault; for a grant the server decides.
    pub(crate) fn loan(&self, faults: &mut Vec<Diagnostic>) -> Loan {
        let mut loan = Loan::default();
        for change in self.changes {
            match change {
                Change::Own(ownership) => self.own(ownership, &mut loan, faults),
                Change::Grant(privilege) | Change::Revoke(privilege) => {
                    for owner in &privilege.owners {
                        self.try_join(owner, &mut loan);
                    }
                    if let Some(schema) = &privilege.schema
                        && let Err((owner, why)) = self.naming(schema, &mut loan)
                    {
                        tracing::debug!(owner, why, "the session's user does not become a member");
                    }
                }
                Change::GrantDefault(defaults) | Change::RevokeDefault(defaults) => {
                    self.try_join(&defaults.owner, &mut loan);
                }
                _ => {}
            }
        }
        loan
    }

    fn own(&self, ownership: &Ownership, loan: &mut Loan, faults: &mut Vec<Diagnostic>) {
        let mut fault = |why: String| {
            let message = format!("{}: {why}", ownership.summary());
            faults.push(Diagnostic { line: Some(ownership.line), path: None, message });
        };
        for (role, becomes) in [(&*ownership.from, false), (self.present(&ownership.role), true)] {
            if let Err(why) = self.join(role, becomes, loan) {
                fault(format!("the role {} {why}", quote::name(role)));
            }
        }
        let user = quote::name(&self.access.user);
        match ownership.kind {
            ObjectKind::Database => {
                if !self.access.is_superuser() && !self.access.creates_databases {
                    fault(format!("that takes the attribute CREATEDB; {user} has not"));
                }
            }
            ObjectKind::Schema => {
                let owner = self.database_owner();
                if !self.owners.creates_schemas && self.join(&owner, false, loan).is_err() {
                    fault(format!(
                        "that takes the privilege CREATE on the database; {user} has not, and cannot act as its owner {}",
                        quote::name(&owner)
                    ));
                }
            }
            _ => {
                for schema in ownership.objects.iter().filter_map(|object| object.schema.as_deref()) {
                    self.creating(ownership, schema, loan, &mut fault);
                }
            }
        }
    }

    /// To name an object takes the privilege USAGE on its schema, which the owner of the schema has. The error is that
    /// owner, and why the session's user cannot act as it.
    fn naming(&self, schema: &str, loan: &mut Loan) -> Result<(), (String, String)> {
        let Some(owner) = self.schema_owner(schema).filter(|_| !self.owners.may_use(schema)) else {
            return Ok(());
        };
        self.join(&owner, false, loan).map_err(|why| (owner, why))
    }

    /// The new owner of an object must be allowed to create objects in its schema.
    fn creating(&self, ownership: &Ownership, schema: &str, loan: &mut Loan, fault: &mut impl FnMut(String)) {
        let role = self.present(&ownership.role);
        let key = (schema.to_owned(), ownership.role.clone());
        if loan.creates.contains(&key) || self.schema_owner(schema).as_deref() == Some(role) {
            return;
        }
        if self.owners.may_create(role, schema) {
            let acts_as = [&*ownership.from, role];
            if acts_as.iter().any(|role| self.owners.role_may_use(role, schema)) {
                return;
            }
            if let Err((owner, why)) = self.naming(schema, loan) {
                fault(format!(
                    "{} has no privilege USAGE on the schema, and the role {} {why}",
                    quote::name(&self.access.user),
                    quote::name(&owner)
                ));
            }
            return;
        }
        // It is granted before the schema changes its owner, and revoked after that.
        let before = self.owners.schema_owner(schema).map(str::to_owned);
        for owner in [before, self.schema_owner(schema)].into_iter().flatten() {
            if let Err(why) = self.join(&owner, false, loan) {
                return fault(format!(
                    "{} has no privilege CREATE on the schema, and it cannot be granted: the role {} {why}",
                    quote::name(role),
                    quote::name(&owner)
                ));
            }
        }
        loan.creates.insert(key);
    }

    fn try_join(&self, role: &str, loan: &mut Loan) {
        if let Err(why) = self.join(role, false, loan) {
            tracing::debug!(role, why, "the session's user does not become a member");
        }
    }

    /// Takes a membership of a role, by the name that it has.
    fn join(&self, role: &str, becomes: bool, loan: &mut Loan) -> Result<(), String> {
        let role = if role == DATABASE_OWNER { self.database_owner() } else { role.to_owned() };
        if let Some(mut membership) = self.access.membership(&role, becomes)? {
            membership.role = self.renamed.get(&*role).copied().unwrap_or(&role).to_owned();
            loan.memberships.insert(membership);
        }
        Ok(())
    }

    /// The owner that the database will have.
    fn database_owner(&self) -> String {
        let moved = self.changes.iter().find_map(|change| match change {
            Change::Own(ownership) if ownership.kind == ObjectKind::Database => {
                Some(self.present(&ownership.role))
            }
            _ => None,
        });
        moved.unwrap_or(&self.owners.database_owner).to_owned()
    }

    /// The owner that a schema will have.
    fn schema_owner(&self, schema: &str) -> Option<String> {
        let moved = self.changes.iter().find_map(|change| match change {
            Change::Own(ownership) if ownership.kind == ObjectKind::Schema => {
                let is_it = ownership.objects.iter().any(|object| object.name == schema);
                is_it.then(|| self.present(&ownership.role).to_owned())
            }
            _ => None,
        });
        moved.or_else(|| self.owners.schema_owner(schema).map(str::to_owned))
    }

    /// The name that a role has on the server.
    fn present<'a>(&'a self, role: &'a str) -> &'a str {
        self.renamed.iter().find(|(_, later)| **later == role).map_or(role, |(now, _)| *now)
    }
}
