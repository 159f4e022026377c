//! Identities of hosts and Entra administrators of servers, through Azure Resource Manager.
//!
//! Long-running operations are polled at the interval that Azure asks for, and no longer than [`Patience`] says. What
//! is there already is not asked for again.

mod host;
mod identity;
mod operation;
mod server;

use std::time::Duration;

use pgentra_identity::Credential;
use pgentra_system::System;
use serde_json::Value;

pub use host::{AzureHost, AzureHostType, SystemAssigned, Wanted};
pub use identity::{FederatedIdentityCredential, UserAssigned};
pub use server::{Administrator, AdministratorKind, AzureServer, AzureServerType};

use pgentra_connect::quote;

use crate::client::{Ask, RestClient};
use crate::{AzureError, AzureErrorKind, Endpoints};

/// How many pages of a list are read; a page of Resource Manager holds a hundred and more.
const PAGES: usize = 100;

/// How long an operation at Azure is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(pub Duration);

impl Default for Patience {
    /// Ten minutes; an assignment takes seconds, a server that is busy minutes.
    fn default() -> Self {
        Self(Duration::from_secs(600))
    }
}

/// A type of resource in the paths of Resource Manager, such as `Microsoft.Compute/virtualMachines`, and the
/// `api-version` whose documents are read here.
#[derive(Clone, Copy)]
struct ResourceType {
    path: &'static str,
    version: &'static str,
}

/// Azure Resource Manager, in one subscription.
#[derive(Debug, Clone)]
pub struct ResourceManager {
    client: RestClient,
    subscription: String,
    patience: Patience,
}

impl ResourceManager {
    /// Resource Manager of these endpoints, asked with this credential: in the named subscription (its id), else in the
    /// only one that the identity has a role in.
    ///
    /// Cancel-safe, as are all methods that only ask.
    ///
    /// # Errors
    /// Why Resource Manager did not answer; or there is no subscription, or there are several.
    pub async fn new(
        system: &System,
        credential: &Credential,
        endpoints: &Endpoints,
        subscription: Option<&str>,
    ) -> Result<Self, AzureError> {
        let endpoint = endpoints.resource_manager.clone();
        let client = RestClient::new("Azure Resource Manager", endpoint, system.clone(), credential.clone());
        let mut manager = Self { client, subscription: String::new(), patience: Patience::default() };
        manager.subscription = match subscription {
            Some(id) => uuid::Uuid::parse_str(id.trim()).map(|id| id.to_string()).map_err(|_| {
                AzureError::new(AzureErrorKind::Usage, format!("`{id}` is not the id of a subscription"))
                    .hinting("find it with: az account list --query '[].[name,id]' -o tsv")
            })?,
            None => manager.only_subscription().await?,
        };
        Ok(manager)
    }

    /// The same, with another patience.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Id of the subscription (a GUID).
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    async fn only_subscription(&self) -> Result<String, AzureError> {
        let url = format!("{}/subscriptions?api-version=2022-12-01", self.client.endpoint.base);
        let found = self.list(url, "find the subscription").await?;
        let ids: Vec<&str> = found.iter().filter_map(|one| one["subscriptionId"].as_str()).collect();
        match ids[..] {
            [one] => Ok(one.to_owned()),
            [] => Err(AzureError::new(AzureErrorKind::NotFound, "this identity has a role in no subscription")
                .hinting("name the subscription with --subscription, and see whether the identity has a role in it: az role assignment list --all --assignee OBJECT_ID")),
            _ => Err(AzureError::new(
                AzureErrorKind::Ambiguous,
                format!("this identity has a role in {} subscriptions: {}", ids.len(), ids.join(", ")),
            )
            .hinting("name one with --subscription or AZURE_SUBSCRIPTION_ID")),
        }
    }

    /// All pages of a list.
    async fn list(&self, url: String, doing: &str) -> Result<Vec<Value>, AzureError> {
        let mut next = Some(url);
        let mut all = Vec::new();
        for _ in 0..PAGES {
            let Some(url) = next else { return Ok(all) };
            let mut page = self.client.json(&Ask::get(url, doing)).await?;
            next = page["nextLink"].as_str().filter(|link| !link.is_empty()).map(str::to_owned);
            match page["value"].take() {
                Value::Array(values) => all.extend(values),
                _ => return Err(self.client.unusable(doing, "list")),
            }
        }
        Err(AzureError::new(AzureErrorKind::Usage, format!("cannot {doing}: the list does not end"))
            .hinting("name the resource group with -g"))
    }

    /// The resource of a kind with this name: in the group, or the only one in the subscription.
    async fn named(
        &self,
        ResourceType { path: kind, version }: ResourceType,
        group: Option<&str>,
        name: &str,
        doing: &str,
    ) -> Result<Value, AzureError> {
        segment(name)?;
        if let Some(group) = group {
            segment(group)?;
            let id = format!(
                "/subscriptions/{}/resourceGroups/{group}/providers/{kind}/{name}",
                self.subscription
            );
            return self.client.json(&Ask::get(self.url(&id, version), doing)).await;
        }
        let id = format!("/subscriptions/{}/providers/{kind}", self.subscription);
        let mut found = self.list(self.url(&id, version), doing).await?;
        let there: Vec<_> = found.iter().filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
        found.retain(|one| one["name"].as_str().is_some_and(|other| other.eq_ignore_ascii_case(name)));
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => {
                let word = kind.rsplit('/').next().unwrap_or(kind);
                let message = format!(
                    "no {} {} in subscription {}{}",
                    singular(word),
                    quote::name(name),
                    self.subscription,
                    instead(&there)
                );
                Err(AzureError::new(AzureErrorKind::NotFound, message).hinting(
                    "who may not see it is told the same; another subscription is named with --subscription",
                ))
            }
            (Some(last), _) => {
                found.push(last);
                let ids: Vec<_> = found.iter().filter_map(|one| one["id"].as_str()).collect();
                let message = format!("{} are called {name}: {}", ids.len(), ids.join(", "));
                Err(AzureError::new(AzureErrorKind::Ambiguous, message)
                    .hinting("name the resource group with -g"))
            }
        }
    }

    fn url(&self, id: &str, version: &str) -> String {
        format!("{}{id}?api-version={version}", self.client.endpoint.base)
    }
}

/// What one of a type of resources is called.
fn singular(word: &str) -> &str {
    match word {
        "flexibleServers" => "flexible server",
        "clusters" => "HorizonDB cluster",
        "virtualMachines" => "virtual machine",
        "userAssignedIdentities" => "user-assigned identity",
        "virtualMachineScaleSets" => "scale set",
        "sites" => "app",
        "containerApps" => "container app",
        "machines" => "Arc server",
        "managedClusters" => "cluster",
        word => word,
    }
}

/// The names that there are, as the end of a sentence.
fn instead(names: &[String]) -> String {
    /// More than these are no help.
    const SHOWN: usize = 5;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| quote::line(name)).collect();
    if shown.is_empty() { String::new() } else { format!("; there is: {}{more}", shown.join(", ")) }
}

/// A part of a resource id: what Azure takes for names of resources and groups, and nothing that leads elsewhere
/// (Microsoft: resource-name-rules).
fn segment(name: &str) -> Result<(), AzureError> {
    let fits = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
    if !name.is_empty()
        && name.len() <= 128
        && name.chars().all(fits)
        && !name.starts_with('.')
        && name.is_ascii()
    {
        return Ok(());
    }
    let shown: String = name.chars().take(128).collect();
    Err(AzureError::new(
        AzureErrorKind::Usage,
        format!("{shown:?} is no name of a resource or a resource group"),
    )
    .hinting("such a name has letters, digits, hyphens, underscores, dots and parentheses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for (name, good) in [
            ("my-Vm_1.(a)", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a?b", false),
            ("a b", false),
            ("näme", false),
            ("a%2Fb", false),
        ] {
            assert_eq!(segment(name).is_ok(), good, "{name}");
        }
        assert!(segment(&"x".repeat(129)).is_err());
    }
}
