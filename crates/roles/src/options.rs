//! What a plan is asked for besides the file, and what it finds besides changes.

use std::fmt;

use super::name::shown;

/// What a plan changes and reports beyond the roles of the file. Default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which mapped roles that are not in the file are dropped. Default: none.
    pub prune: Prune,
    /// Whether group roles that are not in the file are dropped, if the file has group roles. One that the file names as a
    /// role of which another is a member is kept. A role that owns an object makes the whole plan fail. Default: no.
    pub prune_groups: bool,
    /// Whether the directory is asked which principals are gone. Default: no.
    pub orphans: bool,
}

/// Which mapped roles that are not in the file are dropped. The signed-in role is never dropped. A role that owns an
/// object makes the whole plan fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prune {
    /// None: they are listed in the notes of the plan.
    #[default]
    Nothing,
    /// Every mapped role that is not in the file, except administrators.
    Roles,
    /// Every mapped role that is not in the file, administrators too.
    Administrators,
}

/// A finding that does not cause a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A mapped role that is not in the file; where the file has group roles, also a group role.
    NotInFile(String),
    /// The session's user is a member of a role for the length of the transaction in a database.
    #[non_exhaustive]
    Joins {
        /// The role.
        role: String,
        /// The database of the transaction.
        database: String,
    },
    /// A role whose principal the tenant does not have any more.
    Orphan(String),
    /// The tenant did not say which principals it has.
    NoDirectory(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInFile(role) => write!(f, "role {} is not in the file", shown(role)),
            Self::Joins { role, database } => write!(
                f,
                "the signed-in role is a member of {} for the length of the transaction in database {}",
                shown(role),
                shown(database)
            ),
            Self::Orphan(role) => write!(f, "role {}: its principal is no longer in the tenant", shown(role)),
            Self::NoDirectory(why) => write!(f, "roles whose principal is gone were not looked for: {why}"),
        }
    }
}
