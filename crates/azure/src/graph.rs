//! Who is in the tenant, through Microsoft Graph v1.0 (Microsoft: serviceprincipal-list, directoryobject-getbyids).

use std::collections::BTreeSet;
use std::fmt;

use pgentra_connect::quote;
use pgentra_identity::Credential;
use pgentra_system::System;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Ask, GRAPH, Method, RestClient};
use crate::{AzureError, AzureErrorKind, Endpoints};
use pgentra_roles::ObjectType;
use pgentra_roles::directory::{BoxFuture, Directory, DirectoryError, ServicePrincipal};

/// How many objects one search takes at most; a name that fits more is no name.
const MOST: usize = 1_000;

/// How many ids `getByIds` takes in one request.
const IDS: usize = 1_000;

/// How many groups `checkMemberGroups` takes in one request.
const GROUPS: usize = 20;

/// The members that are read of an object.
const MEMBERS: &str = "id,appId,displayName,userPrincipalName,servicePrincipalType,alternativeNames";

/// Who is in the tenant. Reading the directory takes a member of the tenant, or the Entra role Directory Readers.
#[derive(Debug, Clone)]
pub struct Graph {
    client: RestClient,
}

/// A user, a group, or a service principal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// Whether it is a user, a group, an application or a managed identity.
    pub kind: PrincipalKind,
    /// Object id: what a role of Flexible Server is mapped to.
    pub object_id: Uuid,
    /// Client (application) id; only service principals have one.
    pub client_id: Option<Uuid>,
    /// The name that roles are created by: a user's principal name, else the display name.
    pub name: String,
    /// The resource that a managed identity belongs to, or is.
    pub resource_id: Option<String>,
}

/// What a [`Principal`] is: Graph tells applications and managed identities apart, roles do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// A managed identity, system-assigned or user-assigned.
    ManagedIdentity,
    /// Any other service principal: an application.
    Application,
    /// A user, who may be a guest of the tenant.
    User,
    /// A group; its members sign in under the group's name.
    Group,
}

/// Which principals are looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Service principals: managed identities and applications.
    ServicePrincipals,
    /// Persons, by display name or principal name.
    Users,
    /// Security groups, found by their display name.
    Groups,
}

impl Search {
    fn set(self) -> &'static str {
        match self {
            Self::ServicePrincipals => "servicePrincipals",
            Self::Users => "users",
            Self::Groups => "groups",
        }
    }
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ManagedIdentity => "managed-identity",
            Self::Application => "application",
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

impl Graph {
    /// Graph of these endpoints, asked with this credential.
    pub fn new(system: &System, credential: &Credential, endpoints: &Endpoints) -> Self {
        Self { client: RestClient::new(GRAPH, endpoints.graph.clone(), system.clone(), credential.clone()) }
    }

    /// All principals with this name, or with `prefix` whose name begins with it, in no particular order. Case does not matter to Graph.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why Graph did not answer; or there are more than 1,000.
    pub async fn find(&self, search: Search, name: &str, prefix: bool) -> Result<Vec<Principal>, AzureError> {
        let quoted = name.replace('\'', "''");
        let condition = |member: &str| match prefix {
            true => format!("startswith({member},'{quoted}')"),
            false => format!("{member} eq '{quoted}'"),
        };
        let mut found = self.list(search, &condition("displayName")).await?;
        if search == Search::Users {
            for user in self.list(search, &condition("userPrincipalName")).await? {
                if !found.contains(&user) {
                    found.push(user);
                }
            }
        }
        Ok(found)
    }

    /// The one with this name.
    ///
    /// # Errors
    /// Why Graph did not answer; or no principal has the name; or several have it, which the error lists.
    pub async fn one(&self, search: Search, name: &str) -> Result<Principal, AzureError> {
        let mut found = self.find(search, name, false).await?;
        let word = search.set();
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => {
                let message =
                    format!("none of the {word} of the tenant is called {name}", name = quote::name(name));
                Err(AzureError::new(AzureErrorKind::NotFound, message).hinting(format!(
                    "look for what begins like it: pgentra identity find --prefix {}",
                    quote::shell_word(name)
                )))
            }
            (Some(last), _) => {
                found.push(last);
                let ids: Vec<_> = found.iter().map(Principal::described).collect();
                let message = format!(
                    "{} of the {word} are called {name}: {}",
                    ids.len(),
                    ids.join(", "),
                    name = quote::name(name)
                );
                Err(AzureError::new(AzureErrorKind::Ambiguous, message)
                    .hinting("name the one you mean by its object id"))
            }
        }
    }

    /// The principal with this object id; `None` if the tenant has none.
    ///
    /// # Errors
    /// Why Graph did not answer.
    pub async fn by_object_id(&self, object_id: Uuid) -> Result<Option<Principal>, AzureError> {
        let doing = "look an object id up in the tenant";
        let ask = Ask::get(self.url(&format!("directoryObjects/{object_id}")), doing);
        self.client.found(&ask).await?.map(|object| self.principal(&object, doing, None)).transpose()
    }

    /// The service principal with this client id; `None` if the tenant has none.
    ///
    /// # Errors
    /// Why Graph did not answer.
    pub async fn by_client_id(&self, client_id: Uuid) -> Result<Option<Principal>, AzureError> {
        let doing = "look a client id up in the tenant";
        let url = self.url(&format!("servicePrincipals(appId='{client_id}')?$select={MEMBERS}"));
        let found = self.client.found(&Ask::get(url, doing)).await?;
        found.map(|object| self.principal(&object, doing, Some(Search::ServicePrincipals))).transpose()
    }

    /// Those of `groups` that a user or service principal is a member of, directly or through other groups (Microsoft:
    /// directoryobject-checkmembergroups). A principal that the tenant does not have is in none.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why Graph did not answer.
    pub async fn member_of(&self, object_id: Uuid, groups: &[Uuid]) -> Result<Vec<Uuid>, AzureError> {
        let doing = "ask the tenant for the groups of a principal";
        let mut found = Vec::new();
        for groups in groups.chunks(GROUPS) {
            let ask = Ask {
                method: Method::Post,
                url: self.url(&format!("directoryObjects/{object_id}/checkMemberGroups")),
                body: Some(json!({ "groupIds": groups })),
                only_if: None,
                doing,
            };
            let Some(answer) = self.client.found(&ask).await? else { return Ok(Vec::new()) };
            let ids = answer["value"].as_array().ok_or_else(|| self.client.unusable(doing, "list"))?;
            found.extend(ids.iter().filter_map(|id| id.as_str()?.parse::<Uuid>().ok()));
        }
        Ok(found)
    }

    /// Whether an account of the tenant may sign in (`accountEnabled`), by its object id; `None` if the tenant has none.
    /// `search` is [`Search::Users`] or [`Search::ServicePrincipals`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why Graph did not answer.
    pub async fn is_enabled(&self, search: Search, object_id: Uuid) -> Result<Option<bool>, AzureError> {
        let doing = "look up whether an account is enabled";
        let url = self.url(&format!("{}/{object_id}?$select=id,accountEnabled", search.set()));
        let Some(account) = self.client.found(&Ask::get(url, doing)).await? else { return Ok(None) };
        let is_enabled = account["accountEnabled"].as_bool();
        is_enabled.map(Some).ok_or_else(|| self.client.unusable(doing, "accountEnabled"))
    }

    async fn list(&self, search: Search, filter: &str) -> Result<Vec<Principal>, AzureError> {
        let doing = "search the tenant";
        let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let mut next = Some(self.url(&format!("{}?$select={MEMBERS}&$filter={filter}", search.set())));
        let mut found = Vec::new();
        while let Some(url) = next {
            let page = self.client.json(&Ask::get(url, doing)).await?;
            let objects = page["value"].as_array().ok_or_else(|| self.client.unusable(doing, "list"))?;
            for object in objects {
                found.push(self.principal(object, doing, Some(search))?);
            }
            if found.len() > MOST {
                let message = format!("more than {MOST} of the {} have such a name", search.set());
                return Err(AzureError::new(AzureErrorKind::Usage, message).hinting("give more of the name"));
            }
            next = page["@odata.nextLink"].as_str().map(str::to_owned).filter(|_| !objects.is_empty());
        }
        Ok(found)
    }

    async fn which_exist(&self, object_ids: &[Uuid]) -> Result<BTreeSet<Uuid>, AzureError> {
        let doing = "ask the tenant which principals exist";
        let mut found = BTreeSet::new();
        for ids in object_ids.chunks(IDS) {
            let ask = Ask {
                method: Method::Post,
                url: self.url("directoryObjects/getByIds?$select=id"),
                body: Some(json!({ "ids": ids, "types": ["user", "group", "servicePrincipal"] })),
                only_if: None,
                doing,
            };
            let answer = self.client.json(&ask).await?;
            let objects = answer["value"].as_array().ok_or_else(|| self.client.unusable(doing, "list"))?;
            found.extend(objects.iter().filter_map(|object| object["id"].as_str()?.parse::<Uuid>().ok()));
        }
        Ok(found)
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v1.0/{rest}", self.client.endpoint.base)
    }

    fn principal(
        &self,
        object: &Value,
        doing: &str,
        search: Option<Search>,
    ) -> Result<Principal, AzureError> {
        let text = |member: &str| object[member].as_str();
        let id = |member: &str| text(member).and_then(|id| id.parse().ok());
        let object_id = id("id").ok_or_else(|| self.client.unusable(doing, "object id"))?;
        let kind = match (search, text("@odata.type").unwrap_or_default(), text("servicePrincipalType")) {
            (Some(Search::Users), ..) | (None, "#microsoft.graph.user", _) => PrincipalKind::User,
            (Some(Search::Groups), ..) | (None, "#microsoft.graph.group", _) => PrincipalKind::Group,
            (_, _, Some("ManagedIdentity")) => PrincipalKind::ManagedIdentity,
            _ => PrincipalKind::Application,
        };
        let name = match kind {
            PrincipalKind::User => text("userPrincipalName").or(text("displayName")),
            _ => text("displayName"),
        };
        let names = object["alternativeNames"].as_array().into_iter().flatten();
        let resource_id = names.filter_map(Value::as_str).find(|name| name.starts_with("/subscriptions/"));
        Ok(Principal {
            kind,
            object_id,
            client_id: id("appId"),
            name: name.unwrap_or_default().to_owned(),
            resource_id: resource_id.map(str::to_owned),
        })
    }
}

impl Principal {
    /// What distinguishes it from principals of the same name.
    fn described(&self) -> String {
        let resource = self.resource_id.as_deref().map(|id| format!(" ({id})")).unwrap_or_default();
        format!("{} {}{resource}", self.kind, self.object_id)
    }
}

impl Directory for Graph {
    fn service_principal(
        &self,
        client_id: Uuid,
    ) -> BoxFuture<'_, Result<Option<ServicePrincipal>, DirectoryError>> {
        Box::pin(async move {
            let found = self.by_client_id(client_id).await.map_err(directory_error)?;
            Ok(found.map(|one| ServicePrincipal { object_id: one.object_id, client_id, name: one.name }))
        })
    }

    fn existing<'a>(
        &'a self,
        object_ids: &'a [Uuid],
    ) -> BoxFuture<'a, Result<BTreeSet<Uuid>, DirectoryError>> {
        Box::pin(async move { self.which_exist(object_ids).await.map_err(directory_error) })
    }

    fn kind(&self, object_id: Uuid) -> BoxFuture<'_, Result<Option<ObjectType>, DirectoryError>> {
        Box::pin(async move {
            let found = self.by_object_id(object_id).await.map_err(directory_error)?;
            Ok(found.map(|principal| match principal.kind {
                PrincipalKind::ManagedIdentity | PrincipalKind::Application => ObjectType::Service,
                PrincipalKind::User => ObjectType::User,
                PrincipalKind::Group => ObjectType::Group,
            }))
        })
    }
}

fn directory_error(error: AzureError) -> DirectoryError {
    let new = DirectoryError::new("the tenant did not answer");
    let new = match error.hint() {
        Some(hint) => new.hinting(hint),
        None => new,
    };
    new.because(error)
}
