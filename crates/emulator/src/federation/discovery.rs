//! What Entra looks at before it believes an issuer: discovery document and keys (OpenID Connect Discovery 1.0).

use hyper::StatusCode;
use serde_json::json;

use super::issuer::Issuer;
use crate::cloud::Cloud;
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;

/// The endpoint behind a path of the issuers' socket.
pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    match path {
        "/kubernetes/.well-known/openid-configuration"
        | "/github/.well-known/openid-configuration"
        | "/pipelines/.well-known/openid-configuration" => Some(Endpoint::IssuerConfiguration),
        "/kubernetes/openid/v1/jwks" | "/github/.well-known/jwks" | "/pipelines/.well-known/jwks" => {
            Some(Endpoint::IssuerKeys)
        }
        "/github/idtoken" => Some(Endpoint::GitHub),
        _ if path.starts_with("/pipelines/") && path.ends_with("/oidctoken") => Some(Endpoint::Pipelines),
        _ => None,
    }
}

/// `GET {issuer}/.well-known/openid-configuration`
pub(crate) fn configuration(cloud: &Cloud, call: &Call) -> Answer {
    let Some(issuer) = named(cloud, call) else { return Answer::text(StatusCode::NOT_FOUND, "") };
    let body = vec![
        ("issuer", json!(issuer.url)),
        ("jwks_uri", json!(issuer.keys_url)),
        ("response_types_supported", json!(["id_token"])),
        ("subject_types_supported", json!(["public"])),
        ("id_token_signing_alg_values_supported", json!(["RS256"])),
    ];
    Answer::json(StatusCode::OK, body)
}

/// `GET` of an issuer's keys.
pub(crate) fn keys(cloud: &Cloud, call: &Call) -> Result<Answer, KeyError> {
    let Some(issuer) = named(cloud, call) else { return Ok(Answer::text(StatusCode::NOT_FOUND, "")) };
    let key = issuer.key()?.public(None);
    Ok(Answer::json(StatusCode::OK, vec![("keys", json!([key]))]))
}

/// The issuer that the first part of the path names.
fn named<'a>(cloud: &'a Cloud, call: &Call) -> Option<&'a Issuer> {
    let federation = &cloud.federation;
    match call.path.split('/').nth(1)? {
        "kubernetes" => Some(&federation.kubernetes),
        "github" => Some(&federation.github),
        "pipelines" => Some(&federation.pipelines),
        _ => None,
    }
}
