//! The options of a membership.

use std::fmt;

/// The first version where INHERIT and SET are options of a membership.
pub(crate) const OPTIONS_SINCE: i32 = 160_000;

/// What a member may do with a role. Before PostgreSQL 16 only `admin` is an option of the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MembershipOptions {
    /// The member has the privileges of the role without `SET ROLE`.
    pub(crate) inherit: bool,
    /// The member may do `SET ROLE`, and make the role the owner of objects.
    pub(crate) set: bool,
    /// The member may make others members.
    pub(crate) admin: bool,
}

impl Default for MembershipOptions {
    fn default() -> Self {
        Self { inherit: true, set: true, admin: false }
    }
}

impl MembershipOptions {
    /// Whether the member has anything of the role: an option to administer alone is none of it.
    pub(crate) fn is_member(self) -> bool {
        self.inherit || self.set
    }

    /// The options as SQL and people call them.
    pub(crate) fn words(self) -> [(&'static str, bool); 3] {
        [("ADMIN", self.admin), ("INHERIT", self.inherit), ("SET", self.set)]
    }
}

impl fmt::Display for MembershipOptions {
    /// What differs from the default, in words; nothing where nothing does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing: Vec<String> = self
            .words()
            .iter()
            .zip(Self::default().words())
            .filter(|(word, default)| word.1 != default.1)
            .map(|((word, is), _)| format!("{} {}", word.to_lowercase(), yes(*is)))
            .collect();
        match differing.is_empty() {
            true => Ok(()),
            false => write!(f, ", {}", differing.join(", ")),
        }
    }
}

/// How one set of options becomes another, in words.
pub(crate) fn differences(from: MembershipOptions, to: MembershipOptions) -> String {
    let differing: Vec<String> = from
        .words()
        .iter()
        .zip(to.words())
        .filter(|(from, to)| from.1 != to.1)
        .map(|((word, is), (_, wanted))| format!("{} {} → {}", word.to_lowercase(), yes(*is), yes(wanted)))
        .collect();
    differing.join(", ")
}

pub(crate) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
