//! The issuers, and the credentials that are registered for their tokens.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::issuer::Issuer;
use super::kubernetes;
use crate::clock::Clock;
use crate::keys::KeyError;
use crate::options::{Lifetimes, TrustedCluster};

/// The audience that Entra asks of a federated token (Microsoft: workload-identity-federation).
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The audience that the token proxy of AKS identity bindings asks of a service account token
/// (Azure/azure-workload-identity, `pkg/proxy`).
pub const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";

/// `sub` of a workflow on branch `main`.
pub(super) const GITHUB_SUBJECT: &str = "repo:my-organization/my-repository:ref:refs/heads/main";

/// `sub` of a service connection.
pub(super) const PIPELINES_SUBJECT: &str = "sc://my-organization/my-project/my-connection";

/// A federated identity credential: whose tokens are taken as proof of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FederatedCredential {
    /// `iss` of the token, compared byte for byte.
    pub issuer: String,
    /// `sub` of the token, compared byte for byte.
    pub subject: String,
    /// `aud` of the token, compared byte for byte.
    pub audience: String,
}

/// The issuers. One federated credential for each of them is registered with the user-assigned identity and with the
/// application.
#[derive(Debug)]
pub struct Federation {
    pub(super) clock: Clock,
    pub(super) lifetimes: Lifetimes,
    pub(super) kubernetes: Issuer,
    pub(super) github: Issuer,
    pub(super) pipelines: Issuer,
    pub(super) trusted: Option<TrustedCluster>,
    /// Names the one service connection of Azure Pipelines.
    pub(crate) service_connection: Uuid,
}

impl Federation {
    pub(crate) fn new(
        clock: Clock,
        lifetimes: Lifetimes,
        trusted: Option<TrustedCluster>,
        address: &str,
    ) -> Self {
        Self {
            clock,
            lifetimes,
            kubernetes: Issuer::new(format!("{address}/kubernetes/"), "openid/v1/jwks"),
            github: Issuer::new(format!("{address}/github"), "/.well-known/jwks"),
            pipelines: Issuer::new(format!("{address}/pipelines"), "/.well-known/jwks"),
            trusted,
            service_connection: Uuid::new_v4(),
        }
    }

    /// Issuer of the Kubernetes cluster, with the slash at its end.
    pub fn kubernetes_issuer(&self) -> &str {
        &self.kubernetes.url
    }

    /// The federated credential of service account `my-service-account` in namespace `default`.
    pub fn credential(&self) -> FederatedCredential {
        credential(&self.kubernetes, kubernetes::subject(kubernetes::NAMESPACE, kubernetes::SERVICE_ACCOUNT))
    }

    /// The federated credential of branch `main` of repository `my-organization/my-repository` at GitHub.
    pub fn github_credential(&self) -> FederatedCredential {
        credential(&self.github, GITHUB_SUBJECT.to_owned())
    }

    /// The federated credential of a service connection of Azure Pipelines.
    pub fn pipelines_credential(&self) -> FederatedCredential {
        credential(&self.pipelines, PIPELINES_SUBJECT.to_owned())
    }

    /// A service account token that Entra takes, as the kubelet writes it to `AZURE_FEDERATED_TOKEN_FILE`.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn service_account_token(&self) -> Result<SecretString, KeyError> {
        self.token_of(kubernetes::NAMESPACE, kubernetes::SERVICE_ACCOUNT, EXCHANGE_AUDIENCE)
    }

    /// A service account token that the token proxy takes, as the kubelet writes it where identity bindings are used.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn bound_service_account_token(&self) -> Result<SecretString, KeyError> {
        self.token_of(kubernetes::NAMESPACE, kubernetes::SERVICE_ACCOUNT, BINDING_AUDIENCE)
    }

    /// A token of any service account for any audience; Entra takes only the registered one.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn token_of(&self, namespace: &str, account: &str, audience: &str) -> Result<SecretString, KeyError> {
        let life = (self.clock.unix(), self.lifetimes.service_account);
        kubernetes::token(&self.kubernetes, (namespace, account), audience, life)
    }

    /// Every credential that is registered with the user-assigned identity and with the application.
    pub(crate) fn credentials(&self) -> Vec<FederatedCredential> {
        vec![self.credential(), self.github_credential(), self.pipelines_credential()]
    }

    /// What the token proxy takes instead.
    pub(crate) fn binding(&self) -> FederatedCredential {
        FederatedCredential { audience: BINDING_AUDIENCE.to_owned(), ..self.credential() }
    }

    pub(crate) fn service_connection(&self) -> Uuid {
        self.service_connection
    }

    /// The issuer with this `iss`, if Entra can reach it.
    pub(crate) fn issuer(&self, iss: &str) -> Option<&Issuer> {
        self.issuers().into_iter().find(|issuer| issuer.url == iss)
    }

    /// The cluster outside the local cloud.
    pub(crate) fn trusted_cluster(&self) -> Option<&TrustedCluster> {
        self.trusted.as_ref()
    }

    fn issuers(&self) -> [&Issuer; 3] {
        [&self.kubernetes, &self.github, &self.pipelines]
    }
}

fn credential(issuer: &Issuer, subject: String) -> FederatedCredential {
    FederatedCredential { issuer: issuer.url.clone(), subject, audience: EXCHANGE_AUDIENCE.to_owned() }
}
