//! The objects of the directory in JSON.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{GraphApi, GraphError};
use super::place::{DirectoryKey, ObjectSet};
use crate::principals::{Group, ManagedPrincipal, User};
use crate::registration::{AgentIdentity, AppRegistration, ApplicationCredential, ClientSecret};

/// The members that Graph shows of an object although nothing was written to them.
const EMPTY: [(ObjectSet, &[&str], &[&str]); 3] = [
    (
        ObjectSet::Users,
        &["givenName", "jobTitle", "mail", "mobilePhone", "officeLocation", "preferredLanguage", "surname"],
        &["businessPhones"],
    ),
    (ObjectSet::Groups, &["description", "mail", "visibility"], &["groupTypes", "proxyAddresses"]),
    (
        ObjectSet::Applications,
        &["description", "groupMembershipClaims", "notes"],
        &["appRoles", "identifierUris", "keyCredentials", "requiredResourceAccess", "tags"],
    ),
];

impl GraphApi<'_> {
    /// The object with this id, sign-in name, or `appId`.
    pub(super) fn find(&self, set: ObjectSet, key: DirectoryKey<'_>) -> Result<Value, GraphError> {
        let found = self.objects(set).into_iter().find(|object| key.matches(object));
        found.ok_or_else(|| GraphError::no_object(key.text()))
    }

    pub(super) fn object_id(&self, set: ObjectSet, key: DirectoryKey<'_>) -> Result<Uuid, GraphError> {
        Ok(id_of(&self.find(set, key)?))
    }

    pub(super) fn objects(&self, set: ObjectSet) -> Vec<Value> {
        match set {
            ObjectSet::Applications => {
                self.principals.registrations().iter().map(|one| self.application(one)).collect()
            }
            ObjectSet::ServicePrincipals => self.service_principals(),
            ObjectSet::Users => self.principals.users().iter().map(|one| self.user(one)).collect(),
            ObjectSet::Groups => self.principals.groups().iter().map(|one| self.group(one)).collect(),
            ObjectSet::Domains => vec![json!({
                "id": self.domain, "isDefault": true, "isInitial": true, "isVerified": true, "isAdminManaged": true,
                "isRoot": true, "authenticationType": "Managed", "supportedServices": [],
            })],
            ObjectSet::DirectoryObjects => {
                [ObjectSet::Applications, ObjectSet::ServicePrincipals, ObjectSet::Users, ObjectSet::Groups]
                    .into_iter()
                    .flat_map(|set| self.objects(set).into_iter().map(move |object| tagged(set, object)))
                    .collect()
            }
        }
    }

    /// What clients wrote of an object, over what it shows without that.
    fn written(&self, set: ObjectSet, object_id: Uuid, mut object: Value) -> Value {
        for (_, nulls, lists) in EMPTY.iter().filter(|(of, ..)| *of == set) {
            for member in *nulls {
                object[*member] = Value::Null;
            }
            for member in *lists {
                object[*member] = json!([]);
            }
        }
        for (member, value) in self.principals.state().details.get(&object_id).into_iter().flatten() {
            object[member.as_str()] = value.clone();
        }
        object
    }

    fn user(&self, user: &User) -> Value {
        let nickname = user.user_principal_name().split('@').next().unwrap_or_default();
        let object = json!({
            "id": user.object_id(),
            "accountEnabled": self.principals.is_enabled(user.object_id()),
            "displayName": user.name(),
            "mailNickname": nickname,
            "userPrincipalName": user.user_principal_name(),
            "userType": "Member",
        });
        self.written(ObjectSet::Users, user.object_id(), object)
    }

    fn group(&self, group: &Group) -> Value {
        let nickname: String = group.name().chars().filter(char::is_ascii_alphanumeric).collect();
        let object = json!({
            "id": group.object_id(),
            "displayName": group.name(),
            "mailEnabled": false,
            "mailNickname": nickname,
            "securityEnabled": true,
        });
        self.written(ObjectSet::Groups, group.object_id(), object)
    }

    fn application(&self, one: &AppRegistration) -> Value {
        let mut object = json!({
            "id": one.registration_id,
            "appId": one.client_id,
            "displayName": one.name,
            "passwordCredentials": one.secrets.iter().map(secret).collect::<Vec<_>>(),
            "publisherDomain": self.domain,
            "signInAudience": "AzureADMyOrg",
        });
        if one.is_blueprint {
            object["@odata.type"] = json!("#microsoft.graph.agentIdentityBlueprint");
        }
        self.written(ObjectSet::Applications, one.registration_id, object)
    }

    fn service_principals(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for one in &self.principals.registrations() {
            if let Some(object_id) = one.object_id {
                let mut shown = self.principal((&one.name, one.client_id, object_id), "Application", &[]);
                shown["appDisplayName"] = json!(one.name);
                shown["appOwnerOrganizationId"] = json!(self.tenant);
                all.push(self.written(ObjectSet::ServicePrincipals, object_id, shown));
            }
        }
        all.extend(self.managed.iter().map(|one| {
            let ManagedPrincipal { name, client_id, object_id, alternative_names } = one;
            self.principal((name, *client_id, *object_id), "ManagedIdentity", alternative_names)
        }));
        all.extend(self.principals.agents().iter().map(|agent| {
            let AgentIdentity { name, object_id, blueprint } = agent;
            let mut shown = self.principal((name, *object_id, *object_id), "ServiceIdentity", &[]);
            shown["@odata.type"] = json!("#microsoft.graph.agentIdentity");
            shown["agentIdentityBlueprintId"] = json!(blueprint);
            shown
        }));
        all
    }

    fn principal(
        &self,
        (name, client_id, object_id): (&str, Uuid, Uuid),
        kind: &str,
        alternative_names: &[String],
    ) -> Value {
        json!({
            "id": object_id,
            "accountEnabled": self.principals.is_enabled(object_id),
            "alternativeNames": alternative_names,
            "appDisplayName": null,
            "appId": client_id,
            "appOwnerOrganizationId": null,
            "appRoleAssignmentRequired": false,
            "displayName": name,
            "servicePrincipalNames": [client_id],
            "servicePrincipalType": kind,
            "tags": [],
        })
    }
}

pub(super) fn id_of(object: &Value) -> Uuid {
    object["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default()
}

/// In a mixed collection each object says what it is.
fn tagged(set: ObjectSet, mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.entry("@odata.type").or_insert_with(|| json!(format!("#microsoft.graph.{}", set.kind())));
    }
    object
}

/// A secret without its text.
pub(super) fn secret(one: &ClientSecret) -> Value {
    json!({
        "customKeyIdentifier": null,
        "displayName": one.name,
        "endDateTime": time(one.ends),
        "hint": one.hint(),
        "keyId": one.key_id,
        "secretText": null,
        "startDateTime": time(one.starts),
    })
}

pub(super) fn credential(one: &ApplicationCredential) -> Map<String, Value> {
    let object = json!({
        "id": one.id,
        "name": one.name,
        "issuer": one.issuer,
        "subject": one.subject,
        "description": one.description,
        "audiences": [one.audience],
    });
    if let Value::Object(members) = object { members } else { Map::new() }
}

/// `2026-01-31T13:45:00Z`; the last time that can be written, for what does not expire.
fn time(unix: i64) -> String {
    Timestamp::from_second(unix).unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
