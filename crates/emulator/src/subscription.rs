//! What the subscription holds right now: resource groups, identities, the database server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgentra_directory::PrincipalKind;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::directory::{Identity, RESOURCE_GROUP, TenantDirectory};
use crate::federation::FederatedCredential;
use crate::options::ServerOptions;

/// An Entra administrator of the database server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Administrator {
    /// Object id of the Entra principal.
    pub object_id: Uuid,
    /// The name of its role in the database.
    pub name: String,
    /// User, group or service principal.
    pub kind: PrincipalKind,
}

/// A change of the database server that its database has to make. The operation of the management API
/// runs until one of the methods is called; dropped, it fails.
#[derive(Debug)]
pub struct ServerChange {
    change: ServerEdit,
    verdict: oneshot::Sender<Result<(), String>>,
}

/// The parameter that switches the built-in PgBouncer on.
pub const PGBOUNCER_ENABLED: &str = "pgbouncer.enabled";

/// A change of the database server: of its Entra administrators or its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEdit {
    /// A new administrator, or an existing administrator that is written again.
    Add(Administrator),
    /// The administrator with this object id is to be none.
    Remove(Uuid),
    /// Group sync is to be on or off: the parameter `pgaadauth.enable_group_sync`.
    GroupSync(bool),
    /// A parameter of the built-in PgBouncer has another value, or its default again.
    PgBouncer {
        /// The name, such as `pgbouncer.enabled`.
        parameter: &'static str,
        /// The value, which is one of the parameter's.
        value: String,
    },
}

impl ServerChange {
    /// The change that the database has to make.
    pub fn change(&self) -> &ServerEdit {
        &self.change
    }

    /// The database made the change.
    pub fn done(self) {
        // Without a listener the local cloud has stopped.
        let _ = self.verdict.send(Ok(()));
    }

    /// The database refused it in these words; the operation fails with them and the list stays as it was.
    pub fn refused(self, message: impl Into<String>) {
        let _ = self.verdict.send(Err(message.into()));
    }
}

/// The effect of an operation when it ends.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// None: the change was applied when the operation began.
    None,
    /// The server has a new administrator.
    Add(Administrator),
    /// The server has one administrator fewer.
    Remove(Uuid),
    /// Group sync of the server is on or off.
    GroupSync(bool),
    /// A parameter of PgBouncer has another value.
    PgBouncer { parameter: &'static str, value: String },
}

impl Effect {
    /// The change that the database has to make for it.
    fn change(&self) -> Option<ServerEdit> {
        match self {
            Self::None => None,
            Self::Add(new) => Some(ServerEdit::Add(new.clone())),
            Self::Remove(id) => Some(ServerEdit::Remove(*id)),
            Self::GroupSync(is_on) => Some(ServerEdit::GroupSync(*is_on)),
            Self::PgBouncer { parameter, value } => {
                Some(ServerEdit::PgBouncer { parameter, value: value.clone() })
            }
        }
    }

    fn apply(self, state: &mut SubscriptionState) {
        let administrators = &mut state.administrators;
        match self {
            Self::None => {}
            Self::Add(new) => {
                administrators.retain(|other| other.object_id != new.object_id);
                administrators.push(new);
            }
            Self::Remove(id) => administrators.retain(|other| other.object_id != id),
            Self::GroupSync(is_on) => state.is_group_sync = is_on,
            Self::PgBouncer { parameter, value } => {
                state.pgbouncer.insert(parameter.to_owned(), value);
            }
        }
    }
}

/// A role of a principal in the subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoleAssignment {
    /// Resource id of what the role is for.
    pub(crate) scope: String,
    pub(crate) name: Uuid,
    pub(crate) principal: Uuid,
    /// `User`, `Group` or `ServicePrincipal`.
    pub(crate) principal_kind: PrincipalKind,
    /// Resource id of the role.
    pub(crate) definition: String,
}

/// Tags of a resource, by their name.
pub(crate) type Tags = BTreeMap<String, String>;

/// A federated credential of a user-assigned identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedCredential {
    pub(crate) name: String,
    pub(crate) credential: FederatedCredential,
}

/// An operation that takes time, as the management API runs it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: Uuid,
    /// Resource that it works on.
    pub(crate) resource: String,
    /// When it started and ends, in seconds since 1970.
    pub(crate) started: i64,
    pub(crate) ends: i64,
    /// Reason for the failure, as the API returns it.
    pub(crate) failure: Option<String>,
    /// The database has not answered yet.
    waits: bool,
    effect: Effect,
}

impl Operation {
    pub(crate) fn runs(&self, now: i64) -> bool {
        self.waits || now < self.ends
    }
}

/// How many operations are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 256;

/// The most resources of a kind: clients create them, and this is the only bound on memory.
const MOST: usize = 1_000;

/// The changing part of the local Azure, but for the machine's identities.
#[derive(Debug)]
pub(crate) struct Subscription {
    state: Mutex<SubscriptionState>,
}

#[derive(Debug)]
struct SubscriptionState {
    held: Holdings,
    operations: Vec<Operation>,
    /// Answers of the database that are still to come, by operation.
    verdicts: HashMap<Uuid, oneshot::Receiver<Result<(), String>>>,
    /// The database that makes the changes of the server, where there is one.
    database: Option<mpsc::UnboundedSender<ServerChange>>,
}

/// What is kept in a saved state: all but operations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holdings {
    resource_groups: BTreeSet<String>,
    identities: Vec<Identity>,
    /// Of identities, by their object id.
    tags: HashMap<Uuid, Tags>,
    /// By the object id of their identity.
    federated: Vec<(Uuid, NamedCredential)>,
    role_assignments: Vec<RoleAssignment>,
    administrators: Vec<Administrator>,
    /// The server parameter `pgaadauth.enable_group_sync`.
    is_group_sync: bool,
    /// Values of PgBouncer's parameters that were set.
    pub(crate) pgbouncer: BTreeMap<String, String>,
}

impl Deref for SubscriptionState {
    type Target = Holdings;

    fn deref(&self) -> &Holdings {
        &self.held
    }
}

impl DerefMut for SubscriptionState {
    fn deref_mut(&mut self) -> &mut Holdings {
        &mut self.held
    }
}

/// The parameter that switches PgBouncer on at the start, if the options ask for it.
fn switched_on(server: Option<&ServerOptions>) -> Option<(String, String)> {
    server
        .filter(|server| server.pgbouncer_enabled)
        .map(|_| (PGBOUNCER_ENABLED.to_owned(), "true".to_owned()))
}

/// There are as many resources of a kind already as a local cloud holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Subscription {
    pub(crate) fn new(directory: &TenantDirectory, server: Option<&ServerOptions>) -> Self {
        let administrator = &directory.administrator;
        let first = Administrator {
            object_id: administrator.object_id(),
            name: administrator.user_principal_name().to_owned(),
            kind: PrincipalKind::User,
        };
        let administrators: Vec<_> = server.map(|_| first).into_iter().collect();
        Self::of(Holdings {
            resource_groups: BTreeSet::from([RESOURCE_GROUP.to_owned()]),
            identities: vec![directory.user_assigned.clone()],
            tags: HashMap::new(),
            federated: Vec::new(),
            role_assignments: Vec::new(),
            administrators,
            is_group_sync: false,
            pgbouncer: switched_on(server).into_iter().collect(),
        })
    }

    fn of(held: Holdings) -> Self {
        Self {
            state: Mutex::new(SubscriptionState {
                held,
                operations: Vec::new(),
                verdicts: HashMap::new(),
                database: None,
            }),
        }
    }

    /// What an earlier run held, with the issuers of its credentials as they are now.
    pub(crate) fn restore(
        mut held: Holdings,
        server: Option<&ServerOptions>,
        issuer_now: impl Fn(&str) -> Option<String>,
    ) -> Self {
        for (_, NamedCredential { credential, .. }) in &mut held.federated {
            if let Some(issuer) = issuer_now(&credential.issuer) {
                credential.issuer = issuer;
            }
        }
        held.pgbouncer.extend(switched_on(server));
        let is_on = held.pgbouncer.get(PGBOUNCER_ENABLED).is_some_and(|value| value == "true");
        if let Some(reason) = server.filter(|_| is_on).and_then(|server| server.pgbouncer_missing.as_ref()) {
            tracing::warn!(reason, "PgBouncer is off in this run, and was on in the saved state");
            held.pgbouncer.insert(PGBOUNCER_ENABLED.to_owned(), "false".to_owned());
        }
        Self::of(held)
    }

    /// What it holds, with each change that the database has made, also if the operation has not ended.
    pub(crate) fn saved(&self) -> Holdings {
        self.settle(i64::MAX);
        self.state().held.clone()
    }

    /// The resource group that `name` names in any case, as it was written first.
    pub(crate) fn resource_group(&self, name: &str) -> Option<String> {
        self.state().resource_groups.iter().find(|group| group.eq_ignore_ascii_case(name)).cloned()
    }

    pub(crate) fn resource_groups(&self) -> Vec<String> {
        self.state().resource_groups.iter().cloned().collect()
    }

    pub(crate) fn add_resource_group(&self, name: &str) -> Result<(), Full> {
        let mut state = self.state();
        let known = state.resource_groups.iter().any(|group| group.eq_ignore_ascii_case(name));
        if !known {
            room(state.resource_groups.len())?;
            state.resource_groups.insert(name.to_owned());
        }
        Ok(())
    }

    pub(crate) fn identities(&self) -> Vec<Identity> {
        self.state().identities.clone()
    }

    pub(crate) fn add_identity(&self, identity: Identity) -> Result<(), Full> {
        let mut state = self.state();
        room(state.identities.len())?;
        state.identities.push(identity);
        Ok(())
    }

    /// The federated credentials of the identity with this object id.
    pub(crate) fn federated(&self, object_id: Uuid) -> Vec<NamedCredential> {
        let state = self.state();
        let of_identity = state.federated.iter().filter(|(identity, _)| *identity == object_id);
        of_identity.map(|(_, one)| one.clone()).collect()
    }

    /// Adds a federated credential to an identity, or replaces that of the same name.
    pub(crate) fn set_federated(&self, object_id: Uuid, new: NamedCredential) {
        let mut state = self.state();
        let other =
            |(identity, one): &(Uuid, NamedCredential)| *identity != object_id || one.name != new.name;
        state.federated.retain(other);
        state.federated.push((object_id, new));
    }

    /// Whether there was one.
    pub(crate) fn remove_federated(&self, object_id: Uuid, name: &str) -> bool {
        let mut state = self.state();
        let before = state.federated.len();
        state.federated.retain(|(identity, one)| *identity != object_id || one.name != name);
        state.federated.len() < before
    }

    /// Those that clients made; the owners of the subscription are not among them.
    pub(crate) fn role_assignments(&self) -> Vec<RoleAssignment> {
        self.state().role_assignments.clone()
    }

    pub(crate) fn add_role_assignment(&self, new: RoleAssignment) -> Result<(), Full> {
        let mut state = self.state();
        state.role_assignments.retain(|one| one.name != new.name);
        room(state.role_assignments.len())?;
        state.role_assignments.push(new);
        Ok(())
    }

    pub(crate) fn remove_role_assignment(&self, name: Uuid) {
        self.state().role_assignments.retain(|one| one.name != name);
    }

    pub(crate) fn tags(&self, identity: &Identity) -> Tags {
        self.state().tags.get(&identity.object_id).cloned().unwrap_or_default()
    }

    pub(crate) fn set_tags(&self, identity: &Identity, tags: Tags) {
        self.state().tags.insert(identity.object_id, tags);
    }

    /// Deletes a user-assigned identity with its federated credentials, if one has this object id.
    pub(crate) fn remove_identity(&self, object_id: Uuid) {
        let mut state = self.state();
        state.identities.retain(|identity| identity.object_id != object_id);
        state.federated.retain(|(identity, _)| *identity != object_id);
        state.tags.remove(&object_id);
    }

    pub(crate) fn administrators(&self, now: i64) -> Vec<Administrator> {
        self.settle(now);
        self.state().administrators.clone()
    }

    /// Whether there is room for an administrator with this object id.
    pub(crate) fn room_for_administrator(&self, object_id: Uuid, now: i64) -> Result<(), Full> {
        let administrators = self.administrators(now);
        room(administrators.iter().filter(|one| one.object_id != object_id).count())
    }

    /// Whether group sync of the server is on.
    pub(crate) fn is_group_sync(&self, now: i64) -> bool {
        self.settle(now);
        self.state().is_group_sync
    }

    /// The parameters of PgBouncer that were set.
    pub(crate) fn pgbouncer_settings(&self, now: i64) -> BTreeMap<String, String> {
        self.settle(now);
        self.state().pgbouncer.clone()
    }

    /// The value of a parameter of PgBouncer, if it was set.
    pub(crate) fn pgbouncer(&self, parameter: &str, now: i64) -> Option<String> {
        self.settle(now);
        self.state().pgbouncer.get(parameter).cloned()
    }

    /// From now on operations on the server wait for a database. An earlier one gets no more of them.
    pub(crate) fn follow_server(&self) -> mpsc::UnboundedReceiver<ServerChange> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().database = Some(sender);
        receiver
    }

    /// Starts an operation on `resource` that takes `seconds`.
    pub(crate) fn start(&self, resource: &str, effect: Effect, (now, seconds): (i64, i64)) -> Operation {
        let mut state = self.state();
        let mut operation = Operation {
            id: Uuid::new_v4(),
            resource: resource.to_owned(),
            started: now,
            ends: now.saturating_add(seconds),
            failure: None,
            waits: false,
            effect,
        };
        if let (Some(change), Some(database)) = (operation.effect.change(), &state.database) {
            let (verdict, answer) = oneshot::channel();
            // If the receiver was dropped, the database has ended, and the operation does not wait for it.
            if database.send(ServerChange { change, verdict }).is_ok() {
                operation.waits = true;
                state.verdicts.insert(operation.id, answer);
            }
        }
        if state.operations.len() >= REMEMBERED {
            let oldest = state.operations.remove(0);
            state.verdicts.remove(&oldest.id);
        }
        state.operations.push(operation.clone());
        drop(state);
        self.settle(now);
        operation
    }

    pub(crate) fn operation(&self, id: Uuid, now: i64) -> Option<Operation> {
        self.settle(now);
        self.state().operations.iter().find(|operation| operation.id == id).cloned()
    }

    /// The operation that still works on `resource` or on something in it.
    pub(crate) fn running(&self, resource: &str, now: i64) -> Option<Operation> {
        self.settle(now);
        let inside = |operation: &&Operation| {
            operation.resource.get(..resource.len()).is_some_and(|start| start.eq_ignore_ascii_case(resource))
        };
        self.state().operations.iter().filter(|operation| operation.runs(now)).find(inside).cloned()
    }

    /// Applies the effects of the operations that have ended.
    fn settle(&self, now: i64) {
        let mut state = self.state();
        state.hear();
        let mut effects = Vec::new();
        for operation in state.operations.iter_mut().filter(|operation| !operation.runs(now)) {
            effects.push(std::mem::replace(&mut operation.effect, Effect::None));
        }
        for effect in effects {
            effect.apply(&mut state);
        }
    }

    fn state(&self) -> MutexGuard<'_, SubscriptionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SubscriptionState {
    /// Receives the results of changes from the database.
    fn hear(&mut self) {
        for operation in self.operations.iter_mut().filter(|operation| operation.waits) {
            let answer = self.verdicts.get_mut(&operation.id).map(oneshot::Receiver::try_recv);
            operation.failure = match answer {
                Some(Err(oneshot::error::TryRecvError::Empty)) => continue,
                Some(Ok(answer)) => answer.err(),
                _ => Some("An unexpected error occured while processing the request.".to_owned()),
            };
            self.verdicts.remove(&operation.id);
            operation.waits = false;
            if operation.failure.is_some() {
                operation.effect = Effect::None;
            }
        }
    }
}

fn room(count: usize) -> Result<(), Full> {
    if count < MOST { Ok(()) } else { Err(Full) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Ids;

    fn subscription() -> Subscription {
        let directory = TenantDirectory::new(Ids::derived("test"), "secret".to_owned().into());
        Subscription::new(&directory, Some(&ServerOptions::new("server", "localhost")))
    }

    #[test]
    fn an_operation_takes_effect_when_it_ends() {
        let subscription = subscription();
        let new =
            Administrator { object_id: Uuid::nil(), name: "new".to_owned(), kind: PrincipalKind::Group };
        let operation = subscription.start("/a/server/administrators/x", Effect::Add(new.clone()), (100, 10));
        assert!(subscription.running("/A/server", 109).is_some());
        assert!(subscription.running("/a/other", 109).is_none());
        assert!(!subscription.administrators(109).contains(&new));
        assert!(subscription.administrators(110).contains(&new));
        assert!(subscription.operation(operation.id, 110).is_some_and(|operation| !operation.runs(110)));
        subscription.start("/a/server/administrators/x", Effect::Remove(Uuid::nil()), (200, 0));
        assert!(!subscription.administrators(200).contains(&new));
    }

    #[test]
    fn an_operation_waits_for_its_database() {
        let subscription = subscription();
        let mut changes = subscription.follow_server();
        let new =
            Administrator { object_id: Uuid::nil(), name: "new".to_owned(), kind: PrincipalKind::Group };
        let begin = |effect: Effect| subscription.start("/s/administrators/x", effect, (100, 1)).id;
        let listed = || subscription.administrators(500).contains(&new);
        let failure = |id| subscription.operation(id, 500).unwrap().failure;

        let refused = begin(Effect::Add(new.clone()));
        assert!(
            subscription.running("/s", 500).is_some(),
            "its time is over, and the database has not answered"
        );
        let change = changes.try_recv().unwrap();
        assert_eq!(change.change(), &ServerEdit::Add(new.clone()));
        change.refused("no");
        assert_eq!((failure(refused).as_deref(), listed()), (Some("no"), false));
        assert!(subscription.running("/s", 500).is_none());

        let made = begin(Effect::Add(new.clone()));
        changes.try_recv().unwrap().done();
        assert!(subscription.running("/s", 100).is_some(), "it takes its time all the same");
        assert_eq!((failure(made), listed()), (None, true));

        let dropped = begin(Effect::Remove(Uuid::nil()));
        drop(changes.try_recv().unwrap());
        assert!(failure(dropped).is_some() && listed());

        // An operation waits only if it changes administrators and a database follows.
        assert!(!subscription.operation(begin(Effect::None), 500).unwrap().runs(500));
        drop(changes);
        assert_eq!(failure(begin(Effect::Remove(Uuid::nil()))), None);
        assert!(!listed());
    }

    #[test]
    fn pgbouncer_is_off_where_it_is_missing() {
        let held = || {
            let mut held = subscription().saved();
            held.pgbouncer.insert(PGBOUNCER_ENABLED.to_owned(), "true".to_owned());
            held
        };
        let mut server = ServerOptions::new("server", "localhost");
        let shown = |server: &ServerOptions| {
            let restored = Subscription::restore(held(), Some(server), |_| None);
            restored.pgbouncer(PGBOUNCER_ENABLED, 0).unwrap()
        };
        assert_eq!(shown(&server), "true");
        server.pgbouncer_missing = Some("there is no program pgbouncer".to_owned());
        assert_eq!(shown(&server), "false");
    }

    #[test]
    fn nobody_fills_the_memory() {
        let subscription = subscription();
        for number in 1..MOST {
            subscription.add_resource_group(&format!("group{number}")).unwrap();
        }
        assert_eq!(subscription.add_resource_group("one more"), Err(Full));
        assert_eq!(subscription.add_resource_group("GROUP1"), Ok(()));
        assert_eq!(subscription.room_for_administrator(Uuid::nil(), 0), Ok(()));
        let kind = PrincipalKind::User;
        for number in 1..MOST {
            let object_id = Uuid::from_u128(number as u128);
            let new = Administrator { object_id, name: "x".to_owned(), kind };
            subscription.start("/s", Effect::Add(new), (0, 0));
        }
        assert_eq!(subscription.room_for_administrator(Uuid::nil(), 0), Err(Full));
        assert_eq!(subscription.room_for_administrator(Uuid::from_u128(1), 0), Ok(()));
        for number in 0..=REMEMBERED {
            subscription.start(&number.to_string(), Effect::None, (0, 1));
        }
        assert_eq!(subscription.state().operations.len(), REMEMBERED);
    }
}
