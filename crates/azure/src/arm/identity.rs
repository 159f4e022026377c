use serde_json::{Value, json};
use uuid::Uuid;

use super::{ResourceManager, ResourceType, segment};
use crate::client::{Ask, Method};
use crate::{AzureError, AzureErrorKind};

/// User-assigned identities and their federated credentials, and their api-version.
const IDENTITIES: ResourceType =
    ResourceType { path: "Microsoft.ManagedIdentity/userAssignedIdentities", version: "2023-01-31" };

/// Kubernetes clusters, and their api-version.
const CLUSTERS: ResourceType =
    ResourceType { path: "Microsoft.ContainerService/managedClusters", version: "2025-05-01" };

/// Role assignments, and their api-version.
const ROLE_ASSIGNMENTS: ResourceType =
    ResourceType { path: "Microsoft.Authorization/roleAssignments", version: "2022-04-01" };

/// The longest name of a federated credential (Microsoft: resource-name-rules).
const LONGEST_NAME: usize = 120;

/// An identity that is a resource of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserAssigned {
    /// Resource id, `/subscriptions/…/userAssignedIdentities/NAME`.
    pub id: String,
    /// Name of the resource, and of the service principal.
    pub name: String,
    /// Object (principal) id: what roles of Flexible Server are mapped to.
    pub object_id: Uuid,
    /// Client (application) id: what a program on the machine selects the identity by.
    pub client_id: Uuid,
}

/// Whose tokens are taken as proof of a user-assigned identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedIdentityCredential {
    /// Name of the credential, unique in its identity.
    pub name: String,
    /// `iss` of the tokens.
    pub issuer: String,
    /// `sub` of the tokens.
    pub subject: String,
    /// `aud` of the tokens.
    pub audience: String,
}

impl FederatedIdentityCredential {
    /// A credential with a name made of `parts`, of which the first says what made it.
    pub fn named(parts: &[&str], issuer: &str, subject: &str, audience: &str) -> Self {
        let fits = |char: char| if char.is_ascii_alphanumeric() || char == '_' { char } else { '-' };
        let name: String = parts.join("-").chars().map(fits).take(LONGEST_NAME - 4).collect();
        Self { name, issuer: issuer.to_owned(), subject: subject.to_owned(), audience: audience.to_owned() }
    }

    /// Whether both are for the same tokens.
    pub fn is_for_tokens_of(&self, other: &Self) -> bool {
        (&self.issuer, &self.subject, &self.audience) == (&other.issuer, &other.subject, &other.audience)
    }

    fn read(document: &Value) -> Option<Self> {
        let properties = &document["properties"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            name: text(&document["name"])?,
            issuer: text(&properties["issuer"])?,
            subject: text(&properties["subject"])?,
            audience: text(&properties["audiences"][0]).unwrap_or_default(),
        })
    }
}

impl ResourceManager {
    /// The user-assigned identity with this name or resource id.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; or several have the name.
    pub async fn identity(&self, group: Option<&str>, name_or_id: &str) -> Result<UserAssigned, AzureError> {
        let doing = format!("read the user-assigned identity {name_or_id}");
        let document = if name_or_id.starts_with('/') {
            let parts: Vec<&str> = name_or_id.split('/').skip(1).collect();
            parts.iter().try_for_each(|part| segment(part))?;
            let path = parts.get(4..).unwrap_or_default().join("/").to_ascii_lowercase();
            let ResourceType { path: kind, version } = IDENTITIES;
            if parts.len() != 8 || !path.starts_with(&format!("providers/{kind}/").to_ascii_lowercase()) {
                let message = format!("`{name_or_id}` is not the resource id of a user-assigned identity");
                return Err(AzureError::new(AzureErrorKind::Usage, message)
                    .hinting("find it with: az identity show -g GROUP -n NAME --query id"));
            }
            self.client.json(&Ask::get(self.url(name_or_id, version), &doing)).await?
        } else {
            self.named(IDENTITIES, group, name_or_id, &doing).await?
        };
        let properties = &document["properties"];
        let id = |member: &str| properties[member].as_str().and_then(|id| id.parse().ok());
        let text = |member: &str| document[member].as_str().map(str::to_owned);
        match (text("id"), text("name"), id("principalId"), id("clientId")) {
            (Some(id), Some(name), Some(object_id), Some(client_id)) => {
                Ok(UserAssigned { id, name, object_id, client_id })
            }
            _ => Err(self.client.unusable(&doing, "identity")),
        }
    }

    /// The federated credentials of an identity.
    ///
    /// # Errors
    /// Why Resource Manager did not show them.
    pub async fn federated(
        &self,
        identity: &UserAssigned,
    ) -> Result<Vec<FederatedIdentityCredential>, AzureError> {
        let doing = format!("read the federated credentials of the identity {}", identity.name);
        let url = self.url(&format!("{}/federatedIdentityCredentials", identity.id), IDENTITIES.version);
        let listed = self.list(url, &doing).await?;
        let read = listed.iter().map(FederatedIdentityCredential::read);
        read.collect::<Option<_>>().ok_or_else(|| self.client.unusable(&doing, "issuer and subject"))
    }

    /// Adds a federated credential to an identity, under its name or, if another credential has that, under a numbered
    /// one. An existing credential for the same tokens is kept, and is the answer.
    ///
    /// # Errors
    /// Why Resource Manager refused: an identity has at most 20.
    pub async fn federate(
        &self,
        identity: &UserAssigned,
        new: &FederatedIdentityCredential,
    ) -> Result<FederatedIdentityCredential, AzureError> {
        let present = self.federated(identity).await?;
        if let Some(same) = present.iter().find(|one| one.is_for_tokens_of(new)) {
            return Ok(same.clone());
        }
        let is_taken = |name: &String| present.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        let numbered = (2..=99).map(|number| format!("{}-{number}", new.name));
        let name = std::iter::once(new.name.clone()).chain(numbered).find(|name| !is_taken(name));
        let new = FederatedIdentityCredential { name: name.unwrap_or_default(), ..new.clone() };
        let doing = format!("add a federated credential to the identity {}", identity.name);
        let properties = json!({ "issuer": new.issuer, "subject": new.subject, "audiences": [new.audience] });
        let ask = Ask {
            method: Method::Put,
            url: self.credential_url(identity, &new.name),
            body: Some(json!({ "properties": properties })),
            only_if: None,
            doing: &doing,
        };
        self.client.send(&ask).await?;
        Ok(new)
    }

    /// Removes a federated credential of an identity by its name; one that is not there is no error.
    ///
    /// # Errors
    /// Why Resource Manager refused.
    pub async fn unfederate(&self, identity: &UserAssigned, name: &str) -> Result<(), AzureError> {
        let doing = format!("remove a federated credential of the identity {}", identity.name);
        let url = self.credential_url(identity, name);
        let ask = Ask { method: Method::Delete, url, body: None, only_if: None, doing: &doing };
        self.client.send(&ask).await.map(drop)
    }

    /// The issuer of the service account tokens of a Kubernetes cluster.
    ///
    /// # Errors
    /// Why Resource Manager did not show it; several clusters have the name; or the cluster has no issuer.
    pub async fn cluster_issuer(&self, group: Option<&str>, name: &str) -> Result<String, AzureError> {
        let doing = format!("read the issuer of the cluster {name}");
        let document = self.named(CLUSTERS, group, name, &doing).await?;
        let profile = &document["properties"]["oidcIssuerProfile"];
        match profile["issuerURL"].as_str().filter(|_| profile["enabled"] == true) {
            Some(issuer) => Ok(issuer.to_owned()),
            None => {
                let id = document["id"].as_str().unwrap_or_default();
                let message = format!("the cluster {name} has no issuer of tokens");
                Err(AzureError::new(AzureErrorKind::Usage, message).hinting(format!(
                    "az aks update --ids {} --enable-oidc-issuer --enable-workload-identity",
                    pgentra_connect::quote::shell_word(id)
                )))
            }
        }
    }

    /// The scopes in the subscription at which a principal itself has a role.
    ///
    /// # Errors
    /// Why Resource Manager did not show them.
    pub async fn role_assignments(&self, object_id: Uuid) -> Result<Vec<String>, AzureError> {
        let doing = "read the role assignments of the identity";
        let id = format!("/subscriptions/{}/providers/{}", self.subscription, ROLE_ASSIGNMENTS.path);
        let filter = format!("&$filter=principalId%20eq%20'{object_id}'");
        let url = format!("{}{filter}", self.url(&id, ROLE_ASSIGNMENTS.version));
        let listed = self.list(url, doing).await?;
        let scope = |one: &Value| one["properties"]["scope"].as_str().map(str::to_owned);
        listed
            .iter()
            .map(scope)
            .collect::<Option<_>>()
            .ok_or_else(|| self.client.unusable(doing, "scope of a role assignment"))
    }

    fn credential_url(&self, identity: &UserAssigned, name: &str) -> String {
        let id = format!("{}/federatedIdentityCredentials/{name}", identity.id);
        self.url(&id, IDENTITIES.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_has_a_name_that_azure_takes() {
        let named = |parts: &[&str]| FederatedIdentityCredential::named(parts, "i", "s", "a").name;
        assert_eq!(named(&["pgentra", "owner/my.repo", "ref:main"]), "pgentra-owner-my-repo-ref-main");
        assert_eq!(named(&["pgentra", "ä"]), "pgentra--");
        assert_eq!(named(&["pgentra", &"x".repeat(200)]).len(), 116, "with room for a number");
    }
}
