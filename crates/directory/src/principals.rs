//! Who is in the tenant: users, groups and their members, applications.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use uuid::Uuid;

use crate::registration::{AgentIdentity, AppRegistration};

/// The most objects of a kind: clients create them, and this is the only bound on memory.
const MOST: usize = 10_000;

/// The most members of all groups together, and the most owners of all objects.
const MOST_RELATIONS: usize = 100_000;

/// There are as many objects of a kind already as a local tenant holds.
#[derive(Debug, PartialEq, Eq)]
pub struct TenantFull;

/// A user in the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    name: String,
    user_principal_name: String,
    object_id: Uuid,
    groups: Vec<Uuid>,
}

impl User {
    /// A user who is in these groups.
    pub fn new(name: &str, user_principal_name: &str, object_id: Uuid, groups: Vec<Uuid>) -> Self {
        let (name, user_principal_name) = (name.to_owned(), user_principal_name.to_owned());
        Self { name, user_principal_name, object_id, groups }
    }

    /// Display name, `displayName` in Graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sign-in name, `admin@….onmicrosoft.com`: `upn` in a token.
    pub fn user_principal_name(&self) -> &str {
        &self.user_principal_name
    }

    /// Object id: `oid` in a token.
    pub fn object_id(&self) -> Uuid {
        self.object_id
    }

    /// Object ids of the groups the user is in: `groups` in a token.
    pub fn groups(&self) -> &[Uuid] {
        &self.groups
    }
}

/// A security group of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    name: String,
    object_id: Uuid,
}

impl Group {
    /// A group without members.
    pub fn new(name: &str, object_id: Uuid) -> Self {
        Self { name: name.to_owned(), object_id }
    }

    /// Display name, `displayName` in Graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Object id: an element of `groups` in a token.
    pub fn object_id(&self) -> Uuid {
        self.object_id
    }
}

/// The service principal of a managed identity, which Resource Manager creates and deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its name says in Graph")]
pub struct ManagedPrincipal {
    pub name: String,
    pub client_id: Uuid,
    pub object_id: Uuid,
    /// Whether it belongs to a machine, and the resource id.
    pub alternative_names: Vec<String>,
}

/// The kind of a principal, in the words of Resource Manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrincipalKind {
    /// A user.
    User,
    /// A security group; its members sign in under the group's name.
    Group,
    /// An application or a managed identity.
    ServicePrincipal,
    /// An administrator of a server: the request that created it did not contain the kind.
    Unknown,
}

impl PrincipalKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::User, Self::Group, Self::ServicePrincipal, Self::Unknown];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServicePrincipal => "ServicePrincipal",
            Self::Unknown => "Unknown",
        }
    }
}

/// Who is in the tenant right now, but for managed identities. Each change is seen by the next request.
#[derive(Debug)]
pub struct Principals {
    state: Mutex<TenantState>,
    /// Told of every change of who is in the tenant and in its groups.
    changed: watch::Sender<()>,
}

/// Who is in a tenant, for a later run. Its serialized form has secrets in clear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPrincipals(TenantState);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TenantState {
    pub(crate) users: Vec<User>,
    pub(crate) groups: Vec<Group>,
    pub(crate) registrations: Vec<AppRegistration>,
    pub(crate) agents: Vec<AgentIdentity>,
    /// Members of groups that are not users: member and group.
    members: BTreeSet<(Uuid, Uuid)>,
    /// Object and owner.
    pub(crate) owners: BTreeSet<(Uuid, Uuid)>,
    /// Accounts that may not sign in.
    disabled: BTreeSet<Uuid>,
    /// Client ids of applications that were deleted, the latest last.
    #[serde(default)]
    deleted: VecDeque<Uuid>,
    /// What clients wrote of an object beside its names, as in Graph.
    pub(crate) details: HashMap<Uuid, Map<String, Value>>,
}

impl Principals {
    /// A tenant with these users, groups and applications.
    pub fn new(users: Vec<User>, groups: Vec<Group>, registrations: Vec<AppRegistration>) -> Self {
        let state = TenantState { users, groups, registrations, ..TenantState::default() };
        Self { state: Mutex::new(state), changed: watch::channel(()).0 }
    }

    /// Who is in the tenant, for [`Principals::restore`].
    pub fn saved(&self) -> SavedPrincipals {
        SavedPrincipals(self.state().clone())
    }

    /// Who was in the tenant of an earlier run. `issuer_now` tells the issuer that a federated credential names now; `None`:
    /// the same.
    pub fn restore(saved: SavedPrincipals, issuer_now: impl Fn(&str) -> Option<String>) -> Self {
        let SavedPrincipals(mut state) = saved;
        for credential in state.registrations.iter_mut().flat_map(|one| &mut one.credentials) {
            if let Some(issuer) = issuer_now(&credential.issuer) {
                credential.issuer = issuer;
            }
        }
        Self { state: Mutex::new(state), changed: watch::channel(()).0 }
    }

    /// Every user.
    pub fn users(&self) -> Vec<User> {
        self.state().users.clone()
    }

    /// The user with this object id.
    pub fn user(&self, object_id: Uuid) -> Option<User> {
        self.state().users.iter().find(|user| user.object_id == object_id).cloned()
    }

    /// Adds a user.
    ///
    /// # Errors
    /// If there are 10,000.
    pub fn add_user(&self, user: User) -> Result<(), TenantFull> {
        self.change(|state| {
            room(state.users.len())?;
            state.users.push(user);
            Ok(())
        })
    }

    /// Every group.
    pub fn groups(&self) -> Vec<Group> {
        self.state().groups.clone()
    }

    /// Adds a group.
    ///
    /// # Errors
    /// If there are 10,000.
    pub fn add_group(&self, group: Group) -> Result<(), TenantFull> {
        self.change(|state| {
            room(state.groups.len())?;
            state.groups.push(group);
            Ok(())
        })
    }

    /// Every application.
    pub fn registrations(&self) -> Vec<AppRegistration> {
        self.state().registrations.clone()
    }

    /// The application with this client id.
    pub fn registration(&self, client_id: Uuid) -> Option<AppRegistration> {
        self.state().registrations.iter().find(|one| one.client_id == client_id).cloned()
    }

    /// Adds an application.
    ///
    /// # Errors
    /// If there are 10,000.
    pub fn add_registration(&self, registration: AppRegistration) -> Result<(), TenantFull> {
        self.change(|state| {
            room(state.registrations.len())?;
            state.registrations.push(registration);
            Ok(())
        })
    }

    /// Whether an application with this client id was deleted. The last 10,000 are known.
    pub fn is_deleted_application(&self, client_id: Uuid) -> bool {
        self.state().deleted.contains(&client_id)
    }

    /// Whether the application has a credential, and is not registered as one that cannot keep a secret:
    /// `isFallbackPublicClient` in Graph, or a redirect address of `publicClient` or `spa`.
    pub fn is_confidential(&self, registration: &AppRegistration, has_certificate: bool) -> bool {
        let has_credentials =
            has_certificate || !(registration.secrets.is_empty() && registration.credentials.is_empty());
        let state = self.state();
        let details = state.details.get(&registration.registration_id);
        let detail = |member: &str| details.and_then(|details| details.get(member));
        let has_address = |kind: &str| {
            let addresses = detail(kind).and_then(|of| of["redirectUris"].as_array());
            addresses.is_some_and(|addresses| !addresses.is_empty())
        };
        let is_public = detail("isFallbackPublicClient") == Some(&Value::Bool(true))
            || has_address("publicClient")
            || has_address("spa");
        has_credentials && !is_public
    }

    /// Every agent identity.
    pub fn agents(&self) -> Vec<AgentIdentity> {
        self.state().agents.clone()
    }

    /// Adds an agent identity.
    ///
    /// # Errors
    /// If there are 10,000.
    pub fn add_agent(&self, agent: AgentIdentity) -> Result<(), TenantFull> {
        self.change(|state| {
            room(state.agents.len())?;
            state.agents.push(agent);
            Ok(())
        })
    }

    /// Makes a user or a service principal a member of a group.
    ///
    /// # Errors
    /// If the groups have 100,000 members.
    pub fn join_group(&self, member: Uuid, group: Uuid) -> Result<(), TenantFull> {
        self.change(|state| {
            let count = state.members.len() + state.users.iter().map(|user| user.groups.len()).sum::<usize>();
            let is_full = count >= MOST_RELATIONS;
            match state.users.iter_mut().find(|user| user.object_id == member) {
                Some(user) if user.groups.contains(&group) => {}
                None if state.members.contains(&(member, group)) => {}
                _ if is_full => return Err(TenantFull),
                Some(user) => user.groups.push(group),
                None => {
                    state.members.insert((member, group));
                }
            }
            Ok(())
        })
    }

    /// Makes a user or a service principal an owner of an object.
    ///
    /// # Errors
    /// If the objects have 100,000 owners.
    pub(crate) fn add_owner(&self, object: Uuid, owner: Uuid) -> Result<(), TenantFull> {
        self.change(|state| {
            if state.owners.len() >= MOST_RELATIONS && !state.owners.contains(&(object, owner)) {
                return Err(TenantFull);
            }
            state.owners.insert((object, owner));
            Ok(())
        })
    }

    /// Ends the membership of a user or a service principal in a group.
    pub fn leave_group(&self, member: Uuid, group: Uuid) {
        self.change(|state| {
            for user in state.users.iter_mut().filter(|user| user.object_id == member) {
                user.groups.retain(|other| *other != group);
            }
            state.members.remove(&(member, group));
        });
    }

    /// The members of every group: group and member.
    pub fn memberships(&self) -> Vec<(Uuid, Uuid)> {
        let state = self.state();
        let of_users =
            state.users.iter().flat_map(|user| user.groups.iter().map(|group| (*group, user.object_id)));
        of_users.chain(state.members.iter().map(|(member, group)| (*group, *member))).collect()
    }

    /// The kind of the user, the group or the service principal with this object id.
    pub fn kind(&self, object_id: Uuid) -> Option<PrincipalKind> {
        let state = self.state();
        if state.users.iter().any(|user| user.object_id == object_id) {
            return Some(PrincipalKind::User);
        }
        if state.groups.iter().any(|group| group.object_id == object_id) {
            return Some(PrincipalKind::Group);
        }
        let is_service_principal = state.registrations.iter().any(|one| one.object_id == Some(object_id))
            || state.agents.iter().any(|agent| agent.object_id == object_id);
        is_service_principal.then_some(PrincipalKind::ServicePrincipal)
    }

    /// Whether an account may sign in.
    pub fn is_enabled(&self, object_id: Uuid) -> bool {
        !self.state().disabled.contains(&object_id)
    }

    /// Allows an account to sign in, or forbids it.
    pub fn set_enabled(&self, object_id: Uuid, is_enabled: bool) {
        let mut state = self.state();
        match is_enabled {
            true => state.disabled.remove(&object_id),
            false => state.disabled.insert(object_id),
        };
    }

    /// Deletes a user, a group, a service principal or an application. The service principal of an application goes with
    /// it; the application of a service principal stays.
    pub fn remove(&self, object_id: Uuid) {
        self.change(|state| {
            let application = state.registrations.iter().find(|one| one.registration_id == object_id);
            let principal = application.and_then(|one| one.object_id);
            for gone in [Some(object_id), principal].into_iter().flatten() {
                state.forget(gone);
            }
        });
    }

    /// A principal that Resource Manager holds was created or deleted.
    pub fn touch(&self) {
        self.changed.send_replace(());
    }

    /// Changes whenever a principal is created in the tenant or deleted, and with the members of groups.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, TenantState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, make: impl FnOnce(&mut TenantState) -> T) -> T {
        let made = make(&mut self.state());
        self.changed.send_replace(());
        made
    }
}

impl TenantState {
    fn forget(&mut self, object_id: Uuid) {
        self.users.retain(|user| user.object_id != object_id);
        self.groups.retain(|group| group.object_id != object_id);
        for gone in self.registrations.extract_if(.., |one| one.registration_id == object_id) {
            self.deleted.push_back(gone.client_id);
        }
        let forgotten = self.deleted.len().saturating_sub(MOST);
        self.deleted.drain(..forgotten);
        self.agents.retain(|agent| agent.object_id != object_id);
        for one in self.registrations.iter_mut().filter(|one| one.object_id == Some(object_id)) {
            one.object_id = None;
        }
        self.members.retain(|(member, group)| *member != object_id && *group != object_id);
        self.owners.retain(|(object, owner)| *object != object_id && *owner != object_id);
        for user in &mut self.users {
            user.groups.retain(|group| *group != object_id);
        }
        self.disabled.remove(&object_id);
        self.details.remove(&object_id);
    }

    /// Gives a user or a group another name; of a user, perhaps another sign-in name too.
    pub(crate) fn rename(&mut self, object_id: Uuid, name: Option<&str>, sign_in: Option<&str>) {
        for user in self.users.iter_mut().filter(|user| user.object_id == object_id) {
            user.name = name.map_or_else(|| std::mem::take(&mut user.name), str::to_owned);
            if let Some(sign_in) = sign_in {
                sign_in.clone_into(&mut user.user_principal_name);
            }
        }
        let Some(name) = name else { return };
        for group in self.groups.iter_mut().filter(|group| group.object_id == object_id) {
            name.clone_into(&mut group.name);
        }
        for one in self.registrations.iter_mut().filter(|one| one.registration_id == object_id) {
            name.clone_into(&mut one.name);
        }
    }
}

fn room(count: usize) -> Result<(), TenantFull> {
    if count < MOST { Ok(()) } else { Err(TenantFull) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_leaves_nothing_behind() {
        let [user, group, application] = [1, 2, 3].map(Uuid::from_u128);
        let registration =
            AppRegistration::new("app", Uuid::from_u128(4), application, Some(Uuid::from_u128(5)));
        let users = vec![User::new("Ada", "ada@example", user, vec![group])];
        let all = Principals::new(users, vec![Group::new("staff", group)], vec![registration]);
        all.join_group(Uuid::from_u128(5), group).unwrap();
        assert_eq!(all.memberships(), [(group, user), (group, Uuid::from_u128(5))]);
        let client = Uuid::from_u128(4);
        assert!(!all.is_deleted_application(client));
        all.remove(application);
        assert!(all.is_deleted_application(client));
        assert_eq!((all.registrations().len(), all.memberships()), (0, vec![(group, user)]));
        all.remove(group);
        assert_eq!((all.memberships(), all.user(user).unwrap().groups().len()), (vec![], 0));
    }

    #[test]
    fn a_saved_tenant_has_its_secrets_and_the_issuers_of_now() {
        let id = Uuid::from_u128(1);
        let mut registration = AppRegistration::new("app", id, id, Some(id)).with_secret("s3cret".into());
        let credential = |issuer: &str| crate::ApplicationCredential {
            id,
            name: "one".to_owned(),
            issuer: issuer.to_owned(),
            subject: "s".to_owned(),
            audience: "a".to_owned(),
            description: None,
        };
        registration.credentials = vec![credential("https://before/x"), credential("https://other/x")];
        let all = Principals::new(
            vec![User::new("Ada", "ada@example", id, Vec::new())],
            Vec::new(),
            vec![registration],
        );
        all.set_enabled(id, false);
        let text = serde_json::to_string(&all.saved()).unwrap();
        let again = Principals::restore(serde_json::from_str(&text).unwrap(), |issuer| {
            Some(format!("https://now{}", issuer.strip_prefix("https://before")?))
        });
        let registration = again.registration(id).unwrap();
        assert_eq!(registration.check_secret("s3cret", 0), crate::SecretCheck::Good);
        let issuers: Vec<_> = registration.credentials().iter().map(|one| one.issuer.as_str()).collect();
        assert_eq!(issuers, ["https://now/x", "https://other/x"]);
        assert_eq!((again.users(), again.is_enabled(id)), (all.users(), false));
    }

    #[test]
    fn no_client_fills_the_memory() {
        let all = Principals::new(Vec::new(), Vec::new(), Vec::new());
        for _ in 0..MOST {
            all.add_group(Group::new("one", Uuid::new_v4())).unwrap();
        }
        assert_eq!(all.add_group(Group::new("one more", Uuid::new_v4())), Err(TenantFull));
        let (group, id) = (Uuid::nil(), |number: usize| Uuid::from_u128(number as u128));
        for number in 0..MOST_RELATIONS {
            all.join_group(id(number), group).unwrap();
            all.add_owner(group, id(number)).unwrap();
        }
        let more = id(MOST_RELATIONS);
        assert_eq!(
            (all.join_group(more, group), all.add_owner(group, more)),
            (Err(TenantFull), Err(TenantFull))
        );
        assert_eq!((all.join_group(id(1), group), all.add_owner(group, id(1))), (Ok(()), Ok(())));
        all.leave_group(id(1), group);
        assert_eq!(all.join_group(more, group), Ok(()));
    }
}
