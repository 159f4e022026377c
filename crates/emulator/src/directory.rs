//! Who exists in the local tenant, and which identities the machine has.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::digest;
use pgentra_directory::{AppRegistration, Group, User};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// The kind of a managed identity: deleted with its machine, or a resource of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityKind {
    /// Belongs to one machine and has its name.
    SystemAssigned,
    /// A resource of its own, assigned to any number of machines.
    UserAssigned,
}

/// A managed identity: its service principal and its resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub(crate) kind: IdentityKind,
    pub(crate) name: String,
    pub(crate) client_id: Uuid,
    pub(crate) object_id: Uuid,
    pub(crate) resource_id: String,
}

impl Identity {
    /// Whether it is system-assigned or user-assigned.
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// Display name of the service principal: the machine's name, or the identity's own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Client id, also called application id: `appid` in a token.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Object id of the service principal, also called principal id: `oid` in a token.
    pub fn object_id(&self) -> Uuid {
        self.object_id
    }

    /// Azure Resource Manager id: of the identity, or of the machine it belongs to. `xms_mirid` in a token.
    pub fn resource_id(&self) -> &str {
        &self.resource_id
    }
}

/// An application registration with a client secret.
#[derive(Clone, Debug)]
pub struct Application {
    pub(crate) name: String,
    pub(crate) client_id: Uuid,
    pub(crate) object_id: Uuid,
    pub(crate) secret: SecretString,
}

impl Application {
    /// Display name, `displayName` in Graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Client id: `appid` in a token.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Object id of the application's service principal (not of the registration): `oid` in a token.
    pub fn object_id(&self) -> Uuid {
        self.object_id
    }

    /// The client secret; generated at each start that does not begin with a saved state.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }
}

/// The ids of everything in the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each field is the id that its name says")]
pub struct Ids {
    pub tenant: Uuid,
    pub subscription: Uuid,
    pub vm_id: Uuid,
    pub vm_client: Uuid,
    pub vm_object: Uuid,
    pub user_assigned_client: Uuid,
    pub user_assigned_object: Uuid,
    pub application_client: Uuid,
    pub application_object: Uuid,
    pub application_registration: Uuid,
    pub administrator_object: Uuid,
    pub group_object: Uuid,
}

impl Ids {
    /// Fresh ids: two local clouds never share one.
    pub fn random() -> Self {
        Self::from_each(|_| Uuid::new_v4())
    }

    /// Ids that depend on `name` alone, for documentation and transcripts.
    pub fn derived(name: &str) -> Self {
        Self::from_each(|role| derive(name, role))
    }

    fn from_each(id: impl Fn(&str) -> Uuid) -> Self {
        Self {
            tenant: id("tenant"),
            subscription: id("subscription"),
            vm_id: id("vm"),
            vm_client: id("vm client"),
            vm_object: id("vm object"),
            user_assigned_client: id("user-assigned client"),
            user_assigned_object: id("user-assigned object"),
            application_client: id("application client"),
            application_object: id("application object"),
            application_registration: id("application registration"),
            administrator_object: id("administrator object"),
            group_object: id("group object"),
        }
    }
}

/// Everything in the tenant that does not change while it runs.
#[derive(Debug)]
pub(crate) struct TenantDirectory {
    pub(crate) ids: Ids,
    pub(crate) domain: String,
    pub(crate) vm: Identity,
    pub(crate) user_assigned: Identity,
    pub(crate) application: Application,
    pub(crate) administrator: User,
    pub(crate) group: Group,
}

/// The resource group that holds the machine and the user-assigned identity.
pub(crate) const RESOURCE_GROUP: &str = "myResourceGroup";

impl TenantDirectory {
    pub(crate) fn new(ids: Ids, secret: SecretString) -> Self {
        let scope = format!("/subscriptions/{}/resourcegroups/{RESOURCE_GROUP}/providers", ids.subscription);
        let digits = ids.tenant.simple().to_string();
        let domain = format!("pgentra{}.onmicrosoft.com", digits.get(..6).unwrap_or_default());
        let group = Group::new("Database administrators", ids.group_object);
        Self {
            vm: Identity {
                kind: IdentityKind::SystemAssigned,
                name: "myVm".to_owned(),
                client_id: ids.vm_client,
                object_id: ids.vm_object,
                resource_id: format!("{scope}/Microsoft.Compute/virtualMachines/myVm"),
            },
            user_assigned: Identity {
                kind: IdentityKind::UserAssigned,
                name: "myIdentity".to_owned(),
                client_id: ids.user_assigned_client,
                object_id: ids.user_assigned_object,
                resource_id: format!("{scope}/Microsoft.ManagedIdentity/userAssignedIdentities/myIdentity"),
            },
            application: Application {
                name: "myApp".to_owned(),
                client_id: ids.application_client,
                object_id: ids.application_object,
                secret,
            },
            administrator: User::new(
                "Local Administrator",
                &format!("admin@{domain}"),
                ids.administrator_object,
                vec![group.object_id()],
            ),
            group,
            domain,
            ids,
        }
    }

    /// The registration of the application `myApp`.
    pub(crate) fn registration(&self) -> AppRegistration {
        let Application { name, client_id, object_id, secret } = &self.application;
        AppRegistration::new(name, *client_id, self.ids.application_registration, Some(*object_id))
            .with_secret(secret.clone())
    }

    /// A further user-assigned identity in a resource group.
    pub(crate) fn new_identity(&self, group: &str, name: &str) -> Identity {
        let subscription = self.ids.subscription;
        let scope = format!(
            "/subscriptions/{subscription}/resourcegroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
        );
        Identity {
            kind: IdentityKind::UserAssigned,
            name: name.to_owned(),
            client_id: Uuid::new_v4(),
            object_id: Uuid::new_v4(),
            resource_id: format!("{scope}{name}"),
        }
    }

    /// The machine's identity when it is enabled anew: the old principal was deleted and is not restored.
    pub(crate) fn new_principal_of_vm(&self) -> Identity {
        Identity { client_id: Uuid::new_v4(), object_id: Uuid::new_v4(), ..self.vm.clone() }
    }

    /// A further user of the tenant's domain.
    pub(crate) fn new_user(&self, name: &str) -> User {
        User::new(name, &self.user_principal_name(name), Uuid::new_v4(), Vec::new())
    }

    pub(crate) fn user_principal_name(&self, name: &str) -> String {
        format!("{}@{}", name.replace(' ', ".").to_lowercase(), self.domain)
    }
}

/// The identities that the machine has right now.
pub struct Machine {
    assigned: RwLock<Vec<Identity>>,
}

/// How a request names one of several identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdentitySelector<'a> {
    Client(&'a str),
    Object(&'a str),
    Resource(&'a str),
}

impl IdentitySelector<'_> {
    pub(crate) fn matches(self, identity: &Identity) -> bool {
        match self {
            Self::Client(id) => Uuid::parse_str(id).is_ok_and(|id| id == identity.client_id),
            Self::Object(id) => Uuid::parse_str(id).is_ok_and(|id| id == identity.object_id),
            // Azure compares resource ids without regard to case.
            Self::Resource(id) => id.eq_ignore_ascii_case(&identity.resource_id),
        }
    }
}

impl Machine {
    pub(crate) fn new(assigned: Vec<Identity>) -> Self {
        Self { assigned: RwLock::new(assigned) }
    }

    /// The identities assigned right now.
    pub fn identities(&self) -> Vec<Identity> {
        self.assigned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Assigns an identity; one that is assigned already stays as it is.
    pub fn assign(&self, identity: Identity) {
        let mut assigned = self.assigned.write().unwrap_or_else(PoisonError::into_inner);
        if !assigned.contains(&identity) {
            assigned.push(identity);
        }
    }

    /// Assigns these identities and no others.
    pub(crate) fn set(&self, identities: Vec<Identity>) {
        *self.assigned.write().unwrap_or_else(PoisonError::into_inner) = identities;
    }

    /// Takes an identity away. Tokens it holds stay valid, as on Azure.
    pub fn unassign(&self, identity: &Identity) {
        self.assigned.write().unwrap_or_else(PoisonError::into_inner).retain(|other| other != identity);
    }

    pub(crate) fn system_assigned(&self) -> Option<Identity> {
        self.identities().into_iter().find(|identity| identity.kind == IdentityKind::SystemAssigned)
    }

    pub(crate) fn user_assigned(&self) -> Vec<Identity> {
        let mut identities = self.identities();
        identities.retain(|identity| identity.kind == IdentityKind::UserAssigned);
        identities
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.identities().iter().map(Identity::name)).finish()
    }
}

/// A version-4 shaped id out of a digest, so that strict parsers take it.
fn derive(name: &str, role: &str) -> Uuid {
    let digest = digest::digest(&digest::SHA256, format!("pgentra/{name}/{role}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.as_ref().get(..16).unwrap_or(&[0; 16]));
    Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> TenantDirectory {
        TenantDirectory::new(Ids::derived("test"), SecretString::from("correct".to_owned()))
    }

    #[test]
    fn derived_ids_repeat_and_random_ids_do_not() {
        assert_eq!(Ids::derived("docs"), Ids::derived("docs"));
        assert_ne!(Ids::derived("docs"), Ids::derived("other"));
        assert_ne!(Ids::random(), Ids::random());
        assert_eq!(Ids::derived("docs").tenant.get_version_num(), 4);
    }

    #[test]
    fn a_selector_finds_its_identity_in_any_case() {
        let directory = directory();
        let identity = &directory.user_assigned;
        let upper = identity.client_id.to_string().to_uppercase();
        assert!(IdentitySelector::Client(&upper).matches(identity));
        assert!(!IdentitySelector::Object(&upper).matches(identity));
        assert!(IdentitySelector::Resource(&identity.resource_id.to_uppercase()).matches(identity));
        assert!(!IdentitySelector::Client("nonsense").matches(identity));
    }

    #[test]
    fn identities_come_and_go() {
        let directory = directory();
        let machine = Machine::new(vec![directory.vm.clone()]);
        machine.assign(directory.vm.clone());
        let further = directory.new_identity(RESOURCE_GROUP, "another");
        machine.assign(further.clone());
        assert!(further.resource_id.ends_with("/userAssignedIdentities/another"));
        assert_eq!(format!("{machine:?}"), r#"["myVm", "another"]"#);
        machine.unassign(&directory.vm);
        assert_eq!(machine.system_assigned(), None);
        assert_eq!(machine.user_assigned(), [further]);
    }
}
