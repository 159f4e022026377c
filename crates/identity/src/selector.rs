use std::fmt;

use uuid::Uuid;

/// The longest resource id Azure Resource Manager hands out is far below this; anything longer is a mistake.
const MAX_RESOURCE_ID: usize = 2048;

/// Which managed identity is meant, where a host can have several.
///
/// Each source has its own parameter names for these, and some sources can honour none: a selector that the source
/// cannot honour is an error, never ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Whatever the platform takes when none is named: the system-assigned identity; on a virtual machine without one,
    /// its only user-assigned identity.
    #[default]
    Default,
    /// The identity with this client id (also called application id).
    ClientId(Uuid),
    /// The identity with this object id (also called principal id).
    ObjectId(Uuid),
    /// The user-assigned identity with this resource id, `/subscriptions/…/userAssignedIdentities/…`.
    ResourceId(String),
}

impl Selector {
    /// Is this anything but [`Selector::Default`]?
    pub fn is_named(&self) -> bool {
        *self != Self::Default
    }

    /// Why this selector cannot be meant, if so: a resource id must be a full path, or the platform answers with an
    /// error that does not say what is wrong.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        match self {
            Self::ResourceId(id) if id.len() > MAX_RESOURCE_ID => {
                Some("the resource id is longer than 2048 bytes")
            }
            Self::ResourceId(id) if !id.starts_with("/subscriptions/") => {
                Some("a resource id is a full path that starts with /subscriptions/")
            }
            Self::ResourceId(id) if id.chars().any(|c| c.is_control()) => {
                Some("the resource id contains a control character")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the host's default identity"),
            Self::ClientId(id) => write!(f, "client id {id}"),
            Self::ObjectId(id) => write!(f, "object id {id}"),
            Self::ResourceId(id) => write!(f, "resource id {id}"),
        }
    }
}
