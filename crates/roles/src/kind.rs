use std::fmt;
use std::str::FromStr;

/// Which product a server is, as far as roles go. It is found out, never asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flavour {
    /// Flexible Server: the functions `pgaadauth_…`, roles mapped by object id.
    Flexible,
    /// Single Server: members of `azure_ad_user`, whose password is the identity.
    Single,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flexible => "flexible",
            Self::Single => "single",
        })
    }
}

/// What a principal is, by the words of `pgaadauth_create_principal_with_oid` (Microsoft: "Manage Microsoft Entra roles").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ObjectType {
    /// A service principal or a managed identity.
    #[default]
    Service,
    /// A user, who may be a guest of the tenant.
    User,
    /// A security group; its members sign in under its name.
    Group,
}

impl ObjectType {
    /// The word that files and the command line use: `service`, `user` or `group`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ObjectType {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        [Self::Service, Self::User, Self::Group]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownKind)
    }
}

/// A text that names no [`ObjectType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a kind is service, user or group")]
pub struct UnknownKind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_they_are_read() {
        for kind in [ObjectType::Service, ObjectType::User, ObjectType::Group] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for other in ["", "Service", "device"] {
            assert_eq!(other.parse::<ObjectType>(), Err(UnknownKind));
        }
    }
}
