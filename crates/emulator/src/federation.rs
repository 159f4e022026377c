//! Issuers outside Entra whose tokens Entra takes as proof: a Kubernetes cluster.

use aws_lc_rs::digest;
use secrecy::SecretString;
use serde::Serialize;
use uuid::{Builder, Uuid};

use crate::clock::Clock;
use crate::keys::{KeyError, LazyKey, SigningKey};
use std::sync::Arc;
use std::time::Duration;

/// The audience that Entra asks of a federated token (Microsoft: workload-identity-federation).
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// A federated identity credential: whose tokens are taken as proof of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FederatedCredential {
    /// `iss` of the token, compared byte for byte.
    pub issuer: String,
    /// `sub` of the token, compared byte for byte.
    pub subject: String,
    /// `aud` of the token.
    pub audience: String,
}

/// The issuers, and the credential that is registered with the user-assigned identity and the application.
#[derive(Debug)]
pub struct Federation {
    clock: Clock,
    lifetime: Duration,
    kubernetes: Issuer,
}

/// One issuer: its address and its key.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) url: String,
    key: LazyKey,
}

impl Issuer {
    pub(crate) fn new(url: String) -> Self {
        Self { url, key: LazyKey::default() }
    }

    pub(crate) fn key(&self) -> Result<Arc<SigningKey>, KeyError> {
        self.key.get()
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
}

/// Claims of a projected service account token (Kubernetes: service-accounts-admin, "Schema for service account
/// private claims").
#[derive(Serialize)]
struct ServiceAccountToken<'a> {
    aud: [&'a str; 1],
    exp: i64,
    iat: i64,
    iss: &'a str,
    jti: Uuid,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes<'a>,
    nbf: i64,
    sub: String,
}

#[derive(Serialize)]
struct Kubernetes<'a> {
    namespace: &'a str,
    serviceaccount: Named<'a>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    uid: Uuid,
}

/// Namespace and name of the service account that is registered.
const NAMESPACE: &str = "default";
const SERVICE_ACCOUNT: &str = "my-service-account";

impl Federation {
    pub(crate) fn new(clock: Clock, lifetime: Duration, address: &str) -> Self {
        Self { clock, lifetime, kubernetes: Issuer::new(format!("{address}/kubernetes/")) }
    }

    /// Issuer of the Kubernetes cluster, with the slash at its end.
    pub fn kubernetes_issuer(&self) -> &str {
        &self.kubernetes.url
    }

    /// The federated credential that is registered: service account `my-service-account` in namespace `default`.
    pub fn credential(&self) -> FederatedCredential {
        FederatedCredential {
            issuer: self.kubernetes.url.clone(),
            subject: subject(NAMESPACE, SERVICE_ACCOUNT),
            audience: EXCHANGE_AUDIENCE.to_owned(),
        }
    }

    /// A service account token that Entra takes, as the kubelet writes it to `AZURE_FEDERATED_TOKEN_FILE`.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn service_account_token(&self) -> Result<SecretString, KeyError> {
        self.token_of(NAMESPACE, SERVICE_ACCOUNT, EXCHANGE_AUDIENCE)
    }

    /// A token of any service account for any audience; Entra takes only the registered one.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn token_of(&self, namespace: &str, account: &str, audience: &str) -> Result<SecretString, KeyError> {
        let key = self.kubernetes.key()?;
        let now = self.clock.unix();
        let claims = ServiceAccountToken {
            aud: [audience],
            exp: now + i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX),
            iat: now,
            iss: &self.kubernetes.url,
            jti: Uuid::new_v4(),
            kubernetes: Kubernetes {
                namespace,
                serviceaccount: Named { name: account, uid: uid(namespace, account) },
            },
            nbf: now,
            sub: subject(namespace, account),
        };
        Ok(key.sign(&Header { alg: "RS256", kid: key.id() }, &claims)?.into())
    }

    /// The issuer with this `iss`, if Entra can reach it.
    pub(crate) fn issuer(&self, iss: &str) -> Option<&Issuer> {
        [&self.kubernetes].into_iter().find(|issuer| issuer.url == iss)
    }

    pub(crate) fn kubernetes(&self) -> &Issuer {
        &self.kubernetes
    }
}

fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// A service account keeps its id for its life, so it is derived from its name.
fn uid(namespace: &str, account: &str) -> Uuid {
    let digest = digest::digest(&digest::SHA256, subject(namespace, account).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.as_ref().get(..16).unwrap_or(&[0; 16]));
    Builder::from_random_bytes(bytes).into_uuid()
}
