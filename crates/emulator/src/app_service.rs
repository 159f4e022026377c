//! App Service, Functions and Container Apps (Microsoft: overview-managed-identity, "REST endpoint reference").

use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use crate::cloud::{Caching, Cloud, Tweaks};
use crate::directory::{Identity, Selector};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::mint::Draft;

const VERSION: &str = "2019-08-01";

/// `GET /MSI/token`
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &Tweaks) -> Result<Answer, KeyError> {
    let (identity, resource) = match accepted(cloud, call) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(refusal),
    };
    let draft = Draft::of_identity(&identity, resource);
    let minted = cloud.token(Endpoint::AppService, Caching::Platform, &draft, tweaks)?;
    let body = vec![
        ("access_token", json!(minted.token.expose_secret())),
        ("expires_on", json!(minted.expires.to_string())),
        ("resource", json!(resource)),
        ("token_type", json!("Bearer")),
        ("client_id", json!(identity.client_id)),
    ];
    Ok(Answer::json(StatusCode::OK, body))
}

fn accepted<'a>(cloud: &Cloud, call: &'a Call) -> Result<(Identity, &'a str), Answer> {
    if call.method != Method::GET {
        return Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "The requested resource does not support this method.",
        ));
    }
    let expected = cloud.app_service_header.expose_secret();
    if call.header("x-identity-header") != Some(expected) {
        return Err(refusal(StatusCode::UNAUTHORIZED, "The X-IDENTITY-HEADER header is missing or wrong."));
    }
    if call.query.get("api-version") != Some(VERSION) {
        return Err(refusal(StatusCode::BAD_REQUEST, "The api-version is missing or not supported."));
    }
    let Some(resource) = call.query.get("resource") else {
        return Err(refusal(StatusCode::BAD_REQUEST, "The parameter 'resource' is required."));
    };
    let identity = identity(cloud, call)?;
    // A resource that Entra does not know ends in a vague 500 here.
    if cloud.resource(resource).is_none() {
        return Err(refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred while fetching the AAD token.",
        ));
    }
    Ok((identity, resource))
}

/// The named user-assigned identity; without a name the system-assigned one and no other, unlike on a virtual machine.
fn identity(cloud: &Cloud, call: &Call) -> Result<Identity, Answer> {
    let client_ids = call.query.all("client_id").map(Selector::Client);
    let object_ids = call.query.all("principal_id").chain(call.query.all("object_id")).map(Selector::Object);
    let resource_ids = call.query.all("mi_res_id").map(Selector::Resource);
    let selectors: Vec<Selector<'_>> = client_ids.chain(object_ids).chain(resource_ids).collect();
    let bad = |message| refusal(StatusCode::BAD_REQUEST, message);
    match selectors[..] {
        [] => {
            cloud.machine.system_assigned().ok_or_else(|| bad("Unable to load the proper Managed Identity."))
        }
        [selector] => {
            let mut identities = cloud.machine.user_assigned().into_iter();
            identities.find(|identity| selector.matches(identity)).ok_or_else(|| {
                bad("No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
            })
        }
        _ => Err(bad("Only one of client_id, principal_id and mi_res_id may be specified.")),
    }
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    let body = vec![
        ("statusCode", json!(status.as_u16())),
        ("message", json!(message)),
        ("correlationId", json!(Uuid::new_v4())),
    ];
    Answer::json(status, body)
}
