//! The managed identities, users and groups of a running local cloud.

use std::fmt;
use std::str::FromStr;

use pgentra_emulator::{LocalAzure, PrincipalKind};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The kinds of principals that can be added and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// A user-assigned managed identity, which is assigned to the VM `myVm` when it is added.
    Identity,
    /// A user.
    User,
    /// A group.
    Group,
}

impl fmt::Display for MemberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// The name of a principal: 1 to 64 characters without control characters; of an identity, 3 or more
/// ASCII letters, digits, hyphens and underscores, as Resource Manager takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberName(String);

impl MemberName {
    /// Whether an identity can have this name.
    fn fits_identity(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        self.0.len() >= 3
            && self.0.starts_with(|first: char| first.is_ascii_alphanumeric())
            && self.0.bytes().all(is_plain)
    }
}

impl FromStr for MemberName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=64).contains(&text.chars().count())
            && text.trim() == text
            && !text.chars().any(char::is_control);
        fits.then(|| Self(text.to_owned())).ok_or("a name has 1 to 64 characters, and no control characters")
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A principal of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantMember {
    /// A user's sign-in name, else the display name. Roles are created by this name.
    pub name: String,
    /// Object id.
    pub object_id: Uuid,
    /// Client id of an identity.
    pub client_id: Option<Uuid>,
}

/// A change of the members of a group.
#[derive(Clone, Debug)]
pub enum MembershipChange {
    /// No change.
    None,
    /// A user or a service principal becomes a member, by its name or its object id.
    Add(MemberName),
    /// A member is a member no more.
    Remove(MemberName),
}

/// The principals of a kind or of a group, or why a change was refused.
pub type MembersAnswer = Result<Vec<TenantMember>, String>;

/// The principals of this kind, in the order in which they came into the tenant.
pub(crate) fn members(azure: &LocalAzure, kind: MemberKind) -> Vec<TenantMember> {
    let of = |kind| {
        let found = azure.principals().into_iter().filter(move |it| it.kind == kind);
        found.map(|it| TenantMember { name: it.name, object_id: it.object_id, client_id: None }).collect()
    };
    match kind {
        MemberKind::User => of(PrincipalKind::User),
        MemberKind::Group => of(PrincipalKind::Group),
        MemberKind::Identity => azure
            .identities()
            .iter()
            .map(|it| TenantMember {
                name: it.name().to_owned(),
                object_id: it.object_id(),
                client_id: Some(it.client_id()),
            })
            .collect(),
    }
}

/// Adds a principal. Returns those of its kind; it is the last one.
pub(crate) fn add(azure: &LocalAzure, kind: MemberKind, name: &MemberName) -> MembersAnswer {
    if kind == MemberKind::Identity && !name.fits_identity() {
        return Err("the name of an identity has 3 to 64 letters, digits, hyphens and underscores".to_owned());
    }
    let made = match kind {
        MemberKind::User => azure.user_principal_name(&name.0),
        _ => name.0.clone(),
    };
    if azure.principals().iter().any(|it| it.name == made) {
        return Err(format!("the tenant has a principal \"{made}\" already"));
    }
    let before = members(azure, kind).len();
    match kind {
        MemberKind::Identity => {
            let identity = azure.new_identity(&name.0);
            if azure.identities().contains(&identity) {
                azure.machine().assign(identity);
            }
        }
        MemberKind::User => drop(azure.new_user(&name.0)),
        MemberKind::Group => drop(azure.new_group(&name.0)),
    }
    let now = members(azure, kind);
    if now.len() == before { Err("the subscription is full".to_owned()) } else { Ok(now) }
}

/// The principal with this name or object id, or the user with this display name.
fn find(azure: &LocalAzure, kind: MemberKind, name: &MemberName) -> Result<TenantMember, String> {
    let id = name.0.parse::<Uuid>().ok();
    let shown = azure.users().into_iter().find(|it| kind == MemberKind::User && it.name() == name.0);
    let id = id.or_else(|| shown.map(|it| it.object_id()));
    let found = members(azure, kind).into_iter().find(|it| it.name == name.0 || Some(it.object_id) == id);
    found.ok_or_else(|| format!("the tenant has no {kind} \"{name}\""))
}

/// Changes the members of a group, which are users and service principals, and returns them.
pub(crate) fn change_membership(
    azure: &LocalAzure,
    group: &MemberName,
    change: &MembershipChange,
) -> MembersAnswer {
    let group = find(azure, MemberKind::Group, group)?.object_id;
    match change {
        MembershipChange::None => {}
        MembershipChange::Add(name) => azure.join_group(possible_member(azure, name)?, group),
        MembershipChange::Remove(name) => {
            let member = possible_member(azure, name)?;
            if !azure.memberships().contains(&(group, member)) {
                return Err(format!("\"{name}\" is not a member of the group"));
            }
            azure.leave_group(member, group);
        }
    }
    let members = azure.memberships();
    let is_member = |id: Uuid| members.contains(&(group, id));
    let found = azure.principals().into_iter().filter(|it| is_member(it.object_id));
    Ok(found.map(|it| TenantMember { name: it.name, object_id: it.object_id, client_id: None }).collect())
}

/// The object id of a user or a service principal.
fn possible_member(azure: &LocalAzure, name: &MemberName) -> Result<Uuid, String> {
    if let Ok(user) = find(azure, MemberKind::User, name) {
        return Ok(user.object_id);
    }
    let id = name.0.parse::<Uuid>().ok();
    let mut found: Vec<_> = azure.principals();
    found.retain(|it| it.kind != PrincipalKind::Group && (it.name == name.0 || Some(it.object_id) == id));
    match &found[..] {
        [one] => Ok(one.object_id),
        [] => Err(format!("the tenant has no user, identity or application \"{name}\"")),
        _ => Err(format!("the tenant has several principals \"{name}\": write an object id")),
    }
}

/// Removes a principal by its name or its object id, or a user by the display name. Returns the others of its kind. Tokens that were
/// given out stay valid.
pub(crate) fn remove(azure: &LocalAzure, kind: MemberKind, name: &MemberName) -> MembersAnswer {
    let found = find(azure, kind, name)?;
    if found.object_id == azure.administrator().object_id() {
        return Err("the administrator of the server cannot be removed".to_owned());
    }
    azure.delete_principal(found.object_id);
    Ok(members(azure, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_control_characters_and_an_end() {
        let name = |text: &str| text.parse::<MemberName>();
        for good in ["a", "Jörg Müller", "build-agents", &"x".repeat(64)] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", " ", " a", "a\nb", "a\u{0}", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        for (text, fits) in
            [("my-api_2", true), ("ab", false), ("-abc", false), ("a b c", false), ("äää", false)]
        {
            assert_eq!(name(text).unwrap().fits_identity(), fits, "{text}");
        }
    }
}
