//! Whether a principal is in a group.

use pgentra_verify::Principal;
use uuid::Uuid;

/// Whether the token lists the group, or the directory confirms it: it is one of `further`.
pub(crate) fn is_member(principal: &Principal, group: Uuid, further: Option<&[Uuid]>) -> bool {
    principal.groups().contains(group) || further.is_some_and(|further| further.contains(&group))
}
