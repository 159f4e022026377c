//! The ids of a principal.

use uuid::Uuid;

/// A principal, as a role is mapped to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrincipalIds {
    pub(super) object_id: Uuid,
    /// What Single Server maps; known for a user-assigned identity, else asked of the tenant.
    pub(super) client_id: Option<Uuid>,
}
