//! Service Fabric (Microsoft: service-fabric, how-to-managed-identity-service-fabric-app-code): the identity is fixed
//! in the cluster. On Azure the node's certificate is self-signed and clients pin its thumbprint. Here the local authority
//! signs it, so that clients which do not pin it (JavaScript, Java) can trust it too.

use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::mint::Draft;

/// The versions that clients send.
const VERSIONS: [&str; 2] = ["2019-07-01-preview", "2020-05-01"];

pub(crate) const PATH: &str = "/metadata/identity/oauth2/token";

/// `GET /metadata/identity/oauth2/token`
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let bad = |code, message: &str| Ok(refusal(StatusCode::BAD_REQUEST, code, message));
    if call.method != Method::GET {
        return Ok(refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Only GET is supported."));
    }
    let Some(secret) = call.header("secret") else {
        return bad("SecretHeaderNotFound", "Secret is not found in the request headers.");
    };
    let version = call.query.get("api-version").unwrap_or_default();
    if !VERSIONS.contains(&version) {
        let message =
            format!("The api-version '{version}' is not supported. Supported version is '{}'.", VERSIONS[0]);
        return bad("InvalidApiVersion", &message);
    }
    let Some(resource) = call.query.get("resource") else {
        return bad("ArgumentNullOrEmpty", "The parameter 'resource' should not be null or empty string.");
    };
    let known = secret == cloud.secrets.service_fabric.expose_secret();
    let own = cloud.machine.system_assigned().filter(|own| known && cloud.is_enabled(own));
    let Some(identity) = own else {
        let message = "No managed identity found for the specified application host.";
        return Ok(refusal(StatusCode::NOT_FOUND, "ManagedIdentityNotFound", message));
    };
    if cloud.resource(resource).is_none() {
        let message = "The managed identity token service failed to get a token.";
        return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message));
    }
    let draft = Draft::of_identity(&identity, resource);
    let minted = cloud.token(Endpoint::ServiceFabric, Caching::Platform, &draft, tweaks)?;
    let body = vec![
        ("token_type", json!("Bearer")),
        ("access_token", json!(minted.token.expose_secret())),
        ("expires_on", json!(minted.expires)),
        ("resource", json!(resource)),
    ];
    Ok(Answer::json(StatusCode::OK, body))
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let error = json!({"correlationId": Uuid::new_v4(), "code": code, "message": message});
    Answer::json(status, vec![("error", error)])
}
