//! Whose token it is.

use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

/// The owner of a verified token. Cheap to clone.
///
/// It says who signed in, not what they may do: the caller decides whether a database role belongs to this principal.
#[derive(Debug, Clone)]
pub struct Principal(pub(crate) Arc<VerifiedClaims>);

#[derive(Debug)]
pub(crate) struct VerifiedClaims {
    pub(crate) tenant: Option<Uuid>,
    pub(crate) object_id: Uuid,
    pub(crate) subject: String,
    pub(crate) app_id: Option<Uuid>,
    pub(crate) client: Option<String>,
    pub(crate) kind: SubjectKind,
    pub(crate) groups: Groups,
    pub(crate) group_names: Vec<String>,
    pub(crate) app_roles: Vec<String>,
    pub(crate) user_principal_name: Option<String>,
    pub(crate) multi_factor: bool,
    pub(crate) not_before: SystemTime,
    pub(crate) expires_on: SystemTime,
    pub(crate) audience: String,
    pub(crate) issuer: String,
}

/// What kind of principal a token is for. Azure maps database roles of type `service` to the first and `user` to the
/// second, and tells the two apart by the token alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubjectKind {
    /// An application by itself: a managed identity or a service principal. `idtyp` is `app`; or `idtyp` is absent,
    /// there is no `scp`, and `oid` equals `sub`.
    App,
    /// A person, through whatever application: everything else.
    User,
}

/// The groups that a token lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Groups {
    /// Object ids of groups. Entries that are not GUIDs (Entra can be told to emit names) are left out.
    Listed(Vec<Uuid>),
    /// More groups than Entra puts into a token (200): it names a Graph address instead, which is never followed.
    Overage,
    /// The token says nothing about groups.
    Absent,
}

impl Groups {
    /// Whether the token itself proves membership. `false` for [`Groups::Overage`]: not listed is not proven.
    pub fn contains(&self, group: Uuid) -> bool {
        matches!(self, Groups::Listed(groups) if groups.contains(&group))
    }
}

impl Principal {
    /// The tenant (`tid`): always the policy's. `None` for a principal of another issuer than Entra.
    pub fn tenant(&self) -> Option<Uuid> {
        self.0.tenant
    }

    /// The subject (`sub`): for Entra a value that differs between applications, for another issuer its id of the
    /// principal. Empty where Entra leaves it out.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The OAuth client as a text: `appid`, `azp` or `client_id`.
    pub fn client(&self) -> Option<&str> {
        self.0.client.as_deref()
    }

    /// The application roles that were assigned to the principal (`roles`).
    pub fn app_roles(&self) -> &[String] {
        &self.0.app_roles
    }

    /// The claim `groups` as it stands: other issuers than Entra list names, and Entra can be told to. Names are reused,
    /// object ids are not.
    pub fn group_names(&self) -> &[String] {
        &self.0.group_names
    }

    /// The object id (`oid`) of the user or service principal. For a principal of another issuer than Entra it is a GUID
    /// of version 8 that is derived from issuer and subject, which no other principal has.
    pub fn object_id(&self) -> Uuid {
        self.0.object_id
    }

    /// The application (client) id: `appid` in version 1 tokens, `azp` in version 2. For a user's token it is the tool
    /// the user signed in with.
    pub fn app_id(&self) -> Option<Uuid> {
        self.0.app_id
    }

    /// Whether the token is for an application or for a user.
    pub fn kind(&self) -> SubjectKind {
        self.0.kind
    }

    /// The groups that the token lists.
    pub fn groups(&self) -> &Groups {
        &self.0.groups
    }

    /// A person's sign-in name: `upn`, else `preferred_username`, else `unique_name`. For display and audit only: names
    /// are reused, object ids are not.
    pub fn user_principal_name(&self) -> Option<&str> {
        self.0.user_principal_name.as_deref()
    }

    /// Whether `amr` says that a second factor was used (`mfa`).
    pub fn multi_factor(&self) -> bool {
        self.0.multi_factor
    }

    /// When the token begins to be valid (`nbf`), without leeway.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// When the token ends (`exp`), without leeway.
    pub fn expires_on(&self) -> SystemTime {
        self.0.expires_on
    }

    /// The audience (`aud`) as the token spells it.
    pub fn audience(&self) -> &str {
        &self.0.audience
    }

    /// The issuer (`iss`), one of those that the policy allows.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }
}
