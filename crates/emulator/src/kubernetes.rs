//! The service account issuer of a Kubernetes cluster, as far as Entra looks at it: discovery document and keys.

use hyper::StatusCode;
use serde_json::json;

use crate::cloud::Cloud;
use crate::endpoint::Endpoint;
use crate::exchange::Answer;
use crate::keys::KeyError;

pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    match path {
        "/kubernetes/.well-known/openid-configuration" => Some(Endpoint::KubernetesConfiguration),
        "/kubernetes/openid/v1/jwks" => Some(Endpoint::KubernetesKeys),
        _ => None,
    }
}

/// `GET {issuer}.well-known/openid-configuration`
pub(crate) fn configuration(cloud: &Cloud) -> Answer {
    let issuer = &cloud.federation.kubernetes().url;
    let body = vec![
        ("issuer", json!(issuer)),
        ("jwks_uri", json!(format!("{issuer}openid/v1/jwks"))),
        ("response_types_supported", json!(["id_token"])),
        ("subject_types_supported", json!(["public"])),
        ("id_token_signing_alg_values_supported", json!(["RS256"])),
    ];
    Answer::json(StatusCode::OK, body)
}

/// `GET {issuer}openid/v1/jwks`
pub(crate) fn keys(cloud: &Cloud) -> Result<Answer, KeyError> {
    let key = cloud.federation.kubernetes().key()?.public(None);
    Ok(Answer::json(StatusCode::OK, vec![("keys", json!([key]))]))
}
