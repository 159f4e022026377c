//! What an object is asked to do: tell its groups, and take or give up credentials.

use http::StatusCode;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{GraphAnswer, GraphApi, GraphError, GraphRequest};
use super::objects;
use super::pages::ids;
use super::place::{DirectoryKey, ObjectSet};
use crate::registration::{
    AppRegistration, ApplicationCredential, ClientSecret, MOST, credential_flaw, is_short,
};

/// The words after an object that are actions.
pub(super) const IS_ACTION: [&str; 6] = [
    "checkMemberGroups",
    "checkMemberObjects",
    "getMemberGroups",
    "getMemberObjects",
    "addPassword",
    "removePassword",
];

/// How many ids `checkMemberGroups` and `checkMemberObjects` take.
const MOST_GROUP_IDS: usize = 20;
/// How long a secret lives if the client does not say: two years.
const LIFE: i64 = 2 * 365 * 24 * 3600;

impl GraphApi<'_> {
    pub(super) fn act(
        &self,
        request: &GraphRequest<'_>,
        set: ObjectSet,
        key: DirectoryKey<'_>,
        action: &str,
    ) -> Result<GraphAnswer, GraphError> {
        match action {
            "checkMemberGroups" => self.member_groups(request, set, key, Some("groupIds")),
            "checkMemberObjects" => self.member_groups(request, set, key, Some("ids")),
            "getMemberGroups" | "getMemberObjects" => self.member_groups(request, set, key, None),
            _ => {
                let (client, body) = (self.client_id(set, key)?, request.object()?);
                let is_new = action == "addPassword";
                self.change_registration(client, |one| match is_new {
                    true => add_password(one, &body, self.now),
                    false => remove_password(one, &body),
                })
            }
        }
    }

    /// The groups that the object is a member of: all, or those that the body asks about.
    fn member_groups(
        &self,
        request: &GraphRequest<'_>,
        set: ObjectSet,
        key: DirectoryKey<'_>,
        asked: Option<&str>,
    ) -> Result<GraphAnswer, GraphError> {
        let member = self.object_id(set, key)?;
        let body = request.object()?;
        let asked =
            match asked {
                None => None,
                Some(name) => {
                    let asked = ids(body.get(name));
                    Some(asked.ok_or_else(|| {
                        GraphError::bad(format!("Invalid GUID in the collection '{name}'."))
                    })?)
                }
            };
        if asked.as_ref().is_some_and(|asked| asked.len() > MOST_GROUP_IDS) {
            return Err(GraphError::bad("The number of group ids exceeds the limit of 20."));
        }
        let memberships = self.principals.memberships().into_iter();
        let own = memberships.filter(|(_, one)| *one == member).map(|(group, _)| group);
        let found: Vec<Uuid> =
            own.filter(|id| asked.as_ref().is_none_or(|asked| asked.contains(id))).collect();
        let context = format!("{}#Collection(Edm.String)", self.metadata());
        Ok(GraphAnswer::ok(json!({ "@odata.context": context, "value": found })))
    }

    /// The federated credentials of an application: all, or the one with this id or name.
    pub(super) fn credentials(
        &self,
        request: &GraphRequest<'_>,
        set: ObjectSet,
        key: DirectoryKey<'_>,
        rest: &[&str],
    ) -> Result<GraphAnswer, GraphError> {
        if set != ObjectSet::Applications {
            return Err(GraphError::no_segment("federatedIdentityCredentials"));
        }
        let client = self.client_id(set, key)?;
        let at = |one: &AppRegistration, id: &str| {
            let found = one.credentials.iter().position(|it| it.id.to_string() == id || it.name == id);
            found.ok_or_else(|| GraphError::no_object(id))
        };
        let context = format!("{}#applications('{client}')/federatedIdentityCredentials", self.metadata());
        let shown = |status, one: &ApplicationCredential| {
            let mut body =
                Map::from_iter([("@odata.context".to_owned(), json!(format!("{context}/$entity")))]);
            body.extend(objects::credential(one));
            GraphAnswer { status, body: Some(Value::Object(body)) }
        };
        match (request.method.as_str(), rest) {
            ("GET", []) => {
                let found = self.principals.registration(client);
                let all = found.iter().flat_map(|one| &one.credentials);
                let all = all.map(|one| Value::Object(objects::credential(one))).collect();
                self.collection(
                    request,
                    &format!("applications('{client}')/federatedIdentityCredentials"),
                    all,
                )
            }
            ("GET", [id]) => {
                let found = self.principals.registration(client).ok_or_else(|| GraphError::no_object(id))?;
                Ok(shown(StatusCode::OK, &found.credentials[at(&found, id)?]))
            }
            ("POST", []) => {
                let body = request.object()?;
                self.change_registration(client, |one| {
                    let new = credential_of(one, &body, None)?;
                    one.credentials.push(new.clone());
                    Ok(shown(StatusCode::CREATED, &new))
                })
            }
            ("PATCH", [id]) => {
                let body = request.object()?;
                self.change_registration(client, |one| {
                    let at = at(one, id)?;
                    one.credentials[at] = credential_of(one, &body, Some(at))?;
                    Ok(GraphAnswer::nothing())
                })
            }
            ("DELETE", [id]) => self.change_registration(client, |one| {
                let at = at(one, id)?;
                one.credentials.remove(at);
                Ok(GraphAnswer::nothing())
            }),
            _ => Err(GraphError::no_method(request.method)),
        }
    }

    /// The client id of an application that a path names, perhaps by its service principal.
    fn client_id(&self, set: ObjectSet, key: DirectoryKey<'_>) -> Result<Uuid, GraphError> {
        let object = self.find(set, key)?;
        let id = object["appId"].as_str().and_then(|id| id.parse().ok());
        let id = id.filter(|id| self.principals.registration(*id).is_some());
        id.ok_or_else(|| GraphError::no_object(key.text()))
    }

    fn change_registration(
        &self,
        client: Uuid,
        make: impl FnOnce(&mut AppRegistration) -> Result<GraphAnswer, GraphError>,
    ) -> Result<GraphAnswer, GraphError> {
        self.principals.change(|state| {
            let found = state.registrations.iter_mut().find(|one| one.client_id == client);
            make(found.ok_or_else(|| GraphError::no_object(&client.to_string()))?)
        })
    }
}

fn add_password(
    one: &mut AppRegistration,
    body: &Map<String, Value>,
    now: i64,
) -> Result<GraphAnswer, GraphError> {
    if one.secrets.len() >= MOST {
        return Err(GraphError::full());
    }
    let asked = body.get("passwordCredential").unwrap_or(&Value::Null);
    let time = |member: &str, default: i64| match asked[member].as_str() {
        None => Ok(default),
        Some(text) => text.parse::<Timestamp>().map(Timestamp::as_second).map_err(|_| {
            GraphError::bad(format!(
                "Invalid value specified for property '{member}' of resource 'PasswordCredential'."
            ))
        }),
    };
    let starts = time("startDateTime", now)?;
    let ends = time("endDateTime", starts.saturating_add(LIFE))?;
    if ends <= starts {
        return Err(GraphError::bad("Credential lifetime is invalid: its end is not after its start."));
    }
    let name = asked["displayName"].as_str().map(|name| name.chars().take(120).collect::<String>());
    let new = ClientSecret::generate(name.as_deref(), starts, ends);
    let new = new.ok_or_else(|| GraphError::bad("The local directory could not generate a secret."))?;
    let mut answer = objects::secret(&new);
    answer["@odata.context"] = json!("#microsoft.graph.passwordCredential");
    answer["secretText"] = json!(new.secret.expose_secret());
    one.secrets.push(new);
    Ok(GraphAnswer::ok(answer))
}

fn remove_password(one: &mut AppRegistration, body: &Map<String, Value>) -> Result<GraphAnswer, GraphError> {
    let key = body.get("keyId").and_then(Value::as_str).unwrap_or_default();
    let at = one.secrets.iter().position(|secret| secret.key_id.to_string().eq_ignore_ascii_case(key));
    let at =
        at.ok_or_else(|| GraphError::bad(format!("No credentials found to be removed: keyId '{key}'.")))?;
    one.secrets.remove(at);
    Ok(GraphAnswer::nothing())
}

/// A new federated credential, or that at `at` with what the body changes.
fn credential_of(
    one: &AppRegistration,
    body: &Map<String, Value>,
    at: Option<usize>,
) -> Result<ApplicationCredential, GraphError> {
    let old = at.and_then(|at| one.credentials.get(at));
    if old.is_none() && one.credentials.len() >= MOST {
        return Err(GraphError::full());
    }
    let text = |member: &str, value: Option<&Value>, old: Option<&str>| {
        let text = value.and_then(Value::as_str).or(old);
        text.filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| GraphError::no_value(member, "FederatedIdentityCredential"))
    };
    let audiences = body.get("audiences").and_then(Value::as_array);
    if audiences.is_some_and(|all| all.len() != 1) {
        return Err(GraphError::bad("FederatedIdentityCredential must have exactly one audience."));
    }
    let new = ApplicationCredential {
        id: old.map_or_else(Uuid::new_v4, |old| old.id),
        name: text("name", body.get("name"), old.map(|old| &*old.name))?,
        issuer: text("issuer", body.get("issuer"), old.map(|old| &*old.issuer))?,
        subject: text("subject", body.get("subject"), old.map(|old| &*old.subject))?,
        audience: text("audiences", audiences.and_then(|all| all.first()), old.map(|old| &*old.audience))?,
        description: match body.get("description") {
            None => old.and_then(|old| old.description.clone()),
            Some(description) => description.as_str().map(str::to_owned),
        },
    };
    let flaw = credential_flaw(&new.name, &new.issuer, &new.subject, &new.audience);
    let is_long = !new.description.as_deref().is_none_or(is_short);
    if let Some(flaw) = flaw.or(is_long.then_some("description has at most 600 characters")) {
        return Err(GraphError::bad(format!("FederatedIdentityCredential is invalid: {flaw}.")));
    }
    let others = one.credentials.iter().filter(|it| it.id != new.id);
    for other in others {
        if other.name == new.name {
            return Err(GraphError {
                status: StatusCode::CONFLICT,
                code: "Request_MultipleObjectsWithSameKeyValue",
                message: format!("FederatedIdentityCredential with name {} already exists.", new.name),
            });
        }
        if (&other.issuer, &other.subject) == (&new.issuer, &new.subject) {
            return Err(GraphError {
                status: StatusCode::CONFLICT,
                code: "Request_MultipleObjectsWithSameKeyValue",
                message: "Issuer and subject combination must be unique among the federated identity credentials of an \
                          application."
                    .to_owned(),
            });
        }
    }
    Ok(new)
}
