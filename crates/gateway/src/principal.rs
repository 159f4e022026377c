use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A principal of the tenant, under the name that its own role would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// A user's sign-in name, a group's or service principal's display name, a managed identity's resource name; for an
    /// administrator, the name of the role.
    pub name: String,
    /// The object id. For an application, that of its service principal, not of its registration.
    pub object_id: Uuid,
    /// User, group or service.
    pub kind: PrincipalKind,
}

/// A user or a service principal as a member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMembership {
    /// The object id of the group.
    pub group: Uuid,
    /// The object id of the member.
    pub member: Uuid,
}

/// The kind of a principal, in the words of `pgaadauth_create_principal_with_oid` (Microsoft:
/// "Manage Microsoft Entra roles").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A user. The user's own token signs in.
    User,
    /// A security group. A member's own token signs in.
    Group,
    /// A service principal or a managed identity.
    Service,
}

impl PrincipalKind {
    /// The kind as the SQL functions write it: `user`, `group` or `service`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PrincipalKind {
    type Err = UnknownPrincipalKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "user" => Ok(Self::User),
            "group" => Ok(Self::Group),
            "service" => Ok(Self::Service),
            _ => Err(UnknownPrincipalKind),
        }
    }
}

/// A text that is not the name of a [`PrincipalKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of principal: write \"user\", \"group\" or \"service\"")]
pub struct UnknownPrincipalKind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_they_are_read() {
        for kind in [PrincipalKind::User, PrincipalKind::Group, PrincipalKind::Service] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("User".parse::<PrincipalKind>(), Err(UnknownPrincipalKind));
    }
}
