//! What keeps a role from being dropped.

use std::fmt;

use pgentra_connect::quote;

/// Something that keeps a role from being dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The database it is in; `None` for what belongs to the whole server.
    pub database: Option<String>,
    /// How the role is tied to it.
    pub kind: DependencyKind,
    /// What it is, in PostgreSQL's words, such as `table orders`.
    pub what: String,
}

/// How a role is tied to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DependencyKind {
    /// The role owns the object.
    Owned,
    /// The role has privileges on the object.
    Privileges,
    /// A row security policy is about it.
    Policy,
}

impl Dependency {
    /// Whether the role owns it: then another role has to become the owner.
    pub fn is_owned(&self) -> bool {
        self.kind == DependencyKind::Owned
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            DependencyKind::Owned => "owns ",
            DependencyKind::Privileges => "has privileges on ",
            DependencyKind::Policy => "is in a policy on ",
        })?;
        f.write_str(&quote::line(&self.what))?;
        match &self.database {
            Some(database) => write!(f, " (database {})", quote::name(database)),
            None => Ok(()),
        }
    }
}
