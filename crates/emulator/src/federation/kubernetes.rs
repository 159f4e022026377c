//! Service account tokens of a Kubernetes cluster.

use std::time::Duration;

use aws_lc_rs::digest;
use secrecy::SecretString;
use serde::Serialize;
use uuid::{Builder, Uuid};

use super::issuer::Issuer;
use crate::keys::KeyError;

/// Namespace and name of the service account that is registered.
pub(super) const NAMESPACE: &str = "default";
pub(super) const SERVICE_ACCOUNT: &str = "my-service-account";

/// Claims of a projected service account token (Kubernetes: service-accounts-admin, "Schema for service account
/// private claims").
#[derive(Serialize)]
struct Claims<'a> {
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
    serviceaccount: NamedObject<'a>,
}

#[derive(Serialize)]
struct NamedObject<'a> {
    name: &'a str,
    uid: Uuid,
}

/// A token of a service account, by its namespace and name; `life` is its start and its lifetime.
pub(super) fn token(
    issuer: &Issuer,
    (namespace, account): (&str, &str),
    audience: &str,
    life: (i64, Duration),
) -> Result<SecretString, KeyError> {
    let (now, lifetime) = life;
    let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    issuer.sign(&Claims {
        aud: [audience],
        exp: now.saturating_add(lifetime),
        iat: now,
        iss: &issuer.url,
        jti: Uuid::new_v4(),
        kubernetes: Kubernetes {
            namespace,
            serviceaccount: NamedObject { name: account, uid: uid(namespace, account) },
        },
        nbf: now,
        sub: subject(namespace, account),
    })
}

pub(super) fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// A service account keeps its id for its life, so it is derived from its name.
fn uid(namespace: &str, account: &str) -> Uuid {
    let digest = digest::digest(&digest::SHA256, subject(namespace, account).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.as_ref().get(..16).unwrap_or(&[0; 16]));
    Builder::from_random_bytes(bytes).into_uuid()
}
