//! Objects that clients create, change and delete.

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{GraphAnswer, GraphApi, GraphError, GraphRequest};
use super::objects::id_of;
use super::pages::is_kind;
use super::place::{DirectoryKey, DirectoryPlace, ObjectSet};
use super::relations::{Relation, referenced};
use crate::principals::{Group, TenantFull, User};
use crate::registration::{AgentIdentity, AppRegistration};

/// The most characters of a name; Entra's limit for `displayName`.
const LONGEST_NAME: usize = 256;
/// The most bytes that are kept of what a client writes to an object, beside its names.
const MOST_DETAILS: usize = 16 * 1024;

/// Members that only the directory writes, or that change nothing here.
const READ_ONLY: [&str; 7] = [
    "id",
    "appId",
    "passwordCredentials",
    "passwordProfile",
    "publisherDomain",
    "createdDateTime",
    "userType",
];
/// Members of an object that are kept apart from the others.
const KEPT_APART: [&str; 3] = ["displayName", "userPrincipalName", "accountEnabled"];

impl GraphApi<'_> {
    pub(super) fn create(
        &self,
        request: &GraphRequest<'_>,
        place: &DirectoryPlace<'_>,
    ) -> Result<GraphAnswer, GraphError> {
        let body = request.object()?;
        let kind = body.get("@odata.type").and_then(Value::as_str).and_then(|kind| kind.rsplit('.').next());
        let kind = kind.or(place.cast);
        let is = |wanted: &str| kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
        let created = match place.set {
            ObjectSet::Users => self.create_user(&body)?,
            ObjectSet::Groups => self.create_group(&body)?,
            ObjectSet::Applications => self.create_application(&body, is("agentIdentityBlueprint"))?,
            ObjectSet::ServicePrincipals if is("agentIdentity") => self.create_agent(&body)?,
            ObjectSet::ServicePrincipals => self.create_service_principal(&body)?,
            ObjectSet::DirectoryObjects | ObjectSet::Domains => {
                return Err(GraphError::no_method(request.method));
            }
        };
        if let Err(refusal) = self.complete(created, request, place.set, &body) {
            self.principals.remove(created);
            return Err(refusal);
        }
        let id = created.to_string();
        let object = self.find(place.set, DirectoryKey::Id(&id))?;
        Ok(self.one(StatusCode::CREATED, request, place.set, object))
    }

    /// Writes what a new object has beside its names.
    fn complete(
        &self,
        created: Uuid,
        request: &GraphRequest<'_>,
        set: ObjectSet,
        body: &Map<String, Value>,
    ) -> Result<(), GraphError> {
        if set != ObjectSet::ServicePrincipals {
            self.write(created, body)?;
        }
        for relation in [Relation::Members, Relation::Owners] {
            self.bind(created, relation, body)?;
        }
        if matches!(set, ObjectSet::Applications | ObjectSet::Groups) {
            self.principals.add_owner(created, request.caller).map_err(full)?;
        }
        Ok(())
    }

    fn create_user(&self, body: &Map<String, Value>) -> Result<Uuid, GraphError> {
        let name = required(body, "displayName", "User")?;
        let sign_in = required(body, "userPrincipalName", "User")?;
        required(body, "mailNickname", "User")?;
        if body.get("accountEnabled").and_then(Value::as_bool).is_none() {
            return Err(GraphError::no_value("accountEnabled", "User"));
        }
        if body.get("passwordProfile").and_then(|profile| profile["password"].as_str()).is_none() {
            return Err(GraphError::bad("A password must be specified to create a new user."));
        }
        self.check_sign_in(sign_in, None)?;
        let user = User::new(name, sign_in, Uuid::new_v4(), Vec::new());
        let object_id = user.object_id();
        self.principals.add_user(user).map_err(full)?;
        Ok(object_id)
    }

    /// Whether a user can have this sign-in name.
    fn check_sign_in(&self, sign_in: &str, own: Option<Uuid>) -> Result<(), GraphError> {
        let domain = sign_in.split_once('@').filter(|(name, _)| !name.is_empty()).map(|(_, domain)| domain);
        if !domain.is_some_and(|domain| domain.eq_ignore_ascii_case(self.domain)) {
            return Err(GraphError::bad(
                "The domain portion of the userPrincipalName property is invalid. You must use one of the verified domain \
                 names in your organization.",
            ));
        }
        let users = self.principals.users();
        let mut others = users.iter().filter(|user| Some(user.object_id()) != own);
        if others.any(|user| user.user_principal_name().eq_ignore_ascii_case(sign_in)) {
            return Err(GraphError::bad(
                "Another object with the same value for property userPrincipalName already exists.",
            ));
        }
        Ok(())
    }

    fn create_group(&self, body: &Map<String, Value>) -> Result<Uuid, GraphError> {
        let name = required(body, "displayName", "Group")?;
        required(body, "mailNickname", "Group")?;
        for member in ["mailEnabled", "securityEnabled"] {
            if body.get(member).and_then(Value::as_bool).is_none() {
                return Err(GraphError::no_value(member, "Group"));
            }
        }
        let group = Group::new(name, Uuid::new_v4());
        let object_id = group.object_id();
        self.principals.add_group(group).map_err(full)?;
        Ok(object_id)
    }

    fn create_application(&self, body: &Map<String, Value>, is_blueprint: bool) -> Result<Uuid, GraphError> {
        let name = required(body, "displayName", "Application")?;
        let mut new = AppRegistration::new(name, Uuid::new_v4(), Uuid::new_v4(), None);
        new.is_blueprint = is_blueprint;
        let id = new.registration_id;
        self.principals.add_registration(new).map_err(full)?;
        Ok(id)
    }

    fn create_service_principal(&self, body: &Map<String, Value>) -> Result<Uuid, GraphError> {
        let app = required(body, "appId", "ServicePrincipal")?;
        let unknown = || {
            GraphError::bad(format!(
                "The appId '{app}' of the service principal does not reference a valid application object."
            ))
        };
        let client: Uuid = app.parse().map_err(|_| unknown())?;
        let object_id = Uuid::new_v4();
        self.principals.change(|state| {
            let found = state.registrations.iter_mut().find(|one| one.client_id == client);
            let found = found.ok_or_else(unknown)?;
            if found.object_id.is_some() {
                return Err(GraphError {
                    status: StatusCode::CONFLICT,
                    code: "Request_MultipleObjectsWithSameKeyValue",
                    message: format!(
                        "The service principal cannot be created, updated, or restored because the service principal name \
                         {app} is already in use."
                    ),
                });
            }
            found.object_id = Some(object_id);
            Ok(object_id)
        })
    }

    /// `POST /servicePrincipals/microsoft.graph.agentIdentity`
    fn create_agent(&self, body: &Map<String, Value>) -> Result<Uuid, GraphError> {
        let name = required(body, "displayName", "AgentIdentity")?;
        let blueprint = required(body, "agentIdentityBlueprintId", "AgentIdentity")?;
        let found = blueprint.parse().ok().and_then(|id| self.principals.registration(id));
        let found = found.filter(|one| one.is_blueprint && one.object_id.is_some());
        let found = found.ok_or_else(|| GraphError::no_object(blueprint))?;
        let agent = AgentIdentity::new(name, Uuid::new_v4(), found.client_id);
        let object_id = agent.object_id();
        self.principals.add_agent(agent).map_err(full)?;
        Ok(object_id)
    }

    pub(super) fn update(
        &self,
        request: &GraphRequest<'_>,
        set: ObjectSet,
        key: DirectoryKey<'_>,
    ) -> Result<GraphAnswer, GraphError> {
        let (object_id, body) = (self.object_id(set, key)?, request.object()?);
        let name = body.contains_key("displayName").then(|| required(&body, "displayName", set.kind()));
        let name = name.transpose()?;
        let sign_in = body.contains_key("userPrincipalName");
        let sign_in = sign_in.then(|| required(&body, "userPrincipalName", set.kind())).transpose()?;
        if let Some(sign_in) = sign_in {
            self.check_sign_in(sign_in, Some(object_id))?;
        }
        if self.managed.iter().any(|one| one.object_id == object_id) && name.is_some() {
            return Err(GraphError::denied());
        }
        let bound = self.bind(object_id, Relation::Members, &body)?;
        if let Err(refusal) = self.write(object_id, &body) {
            self.unbind(object_id, Relation::Members, &bound);
            return Err(refusal);
        }
        self.principals.change(|state| state.rename(object_id, name, sign_in));
        Ok(GraphAnswer::nothing())
    }

    pub(super) fn delete(&self, set: ObjectSet, key: DirectoryKey<'_>) -> Result<GraphAnswer, GraphError> {
        let object_id = self.object_id(set, key)?;
        let is_managed = self.managed.iter().any(|one| one.object_id == object_id);
        if is_managed || object_id == self.administrator {
            return Err(GraphError::denied());
        }
        self.principals.remove(object_id);
        Ok(GraphAnswer::nothing())
    }

    /// Keeps what a client writes to an object.
    fn write(&self, object_id: Uuid, body: &Map<String, Value>) -> Result<(), GraphError> {
        if body.get("keyCredentials").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty()) {
            return Err(GraphError::bad(
                "The local directory takes no keyCredentials: an application proves itself with a secret or a federated \
                 identity credential.",
            ));
        }
        let is_detail = |member: &str| {
            !(READ_ONLY.contains(&member) || KEPT_APART.contains(&member) || member.contains('@'))
        };
        self.principals.change(|state| {
            let details = state.details.entry(object_id).or_default();
            let mut written = details.clone();
            let new = body.iter().filter(|(member, _)| is_detail(member));
            written.extend(new.map(|(member, value)| (member.clone(), value.clone())));
            if json!(written).to_string().len() > MOST_DETAILS {
                return Err(GraphError::bad("The local directory keeps 16 KiB of an object."));
            }
            *details = written;
            Ok(())
        })?;
        if let Some(is_enabled) = body.get("accountEnabled").and_then(Value::as_bool) {
            self.principals.set_enabled(object_id, is_enabled);
        }
        Ok(())
    }

    /// Members and owners that a body names: `members@odata.bind`. All of them, or none; those that are new.
    fn bind(
        &self,
        object_id: Uuid,
        relation: Relation,
        body: &Map<String, Value>,
    ) -> Result<Vec<Uuid>, GraphError> {
        let named = body.get(&format!("{}@odata.bind", relation.name())).and_then(Value::as_array);
        let mut bound = Vec::new();
        for address in named.into_iter().flatten() {
            let made = self.reference(address.as_str().unwrap_or_default()).and_then(|other| {
                let is_new = !self.related(relation, object_id).contains(&id_of(&other));
                if is_new {
                    self.relate(relation, object_id, &other)?;
                    bound.push(id_of(&other));
                }
                Ok(())
            });
            if let Err(refusal) = made {
                self.unbind(object_id, relation, &bound);
                return Err(refusal);
            }
        }
        Ok(bound)
    }

    fn unbind(&self, object_id: Uuid, relation: Relation, bound: &[Uuid]) {
        for other in bound {
            self.part(relation, object_id, *other);
        }
    }

    /// The object at an address that a client sent.
    pub(super) fn reference(&self, address: &str) -> Result<Value, GraphError> {
        let id =
            referenced(address).ok_or_else(|| GraphError::bad(format!("Invalid reference '{address}'.")))?;
        let object = self.find(ObjectSet::DirectoryObjects, DirectoryKey::Id(&id.to_string()))?;
        if is_kind(&object, "application") {
            return Err(GraphError::no_object(&id.to_string()));
        }
        Ok(object)
    }
}

/// A text that has to be there.
fn required<'a>(body: &'a Map<String, Value>, member: &str, kind: &str) -> Result<&'a str, GraphError> {
    let text = body.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| GraphError::no_value(member, kind))?;
    if text.chars().count() > LONGEST_NAME || text.chars().any(char::is_control) {
        return Err(GraphError::bad(format!(
            "Invalid value specified for property '{member}' of resource '{kind}'."
        )));
    }
    Ok(text)
}

fn full(_: TenantFull) -> GraphError {
    GraphError::full()
}
