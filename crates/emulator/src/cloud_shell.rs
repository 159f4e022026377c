//! Cloud Shell: a token of the person who is signed in (Microsoft: cloud-shell, msi-authorization).

use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::endpoint::Endpoint;
use crate::entra::user;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::mint::Draft;

/// `POST /oauth2/token` with `resource` in a form, or, as the Azure SDK for Java asks, `GET` with `resource` in the query:
/// what the real endpoint answers to that is not documented. Selectors of identities mean nothing here: there is one person.
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let form = match call.method {
        Method::POST => call.form(),
        Method::GET => call.query.clone(),
        _ => {
            return Ok(refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "Only POST is supported.",
            ));
        }
    };
    if !call.has_metadata_header() {
        let message = "Required metadata header not specified.";
        return Ok(refusal(StatusCode::BAD_REQUEST, "BadRequest", message));
    }
    let Some(resource) = form.get("resource") else {
        return Ok(refusal(StatusCode::BAD_REQUEST, "BadRequest", "Missing parameter 'resource'."));
    };
    if cloud.resource(resource).is_none() {
        let message = format!(
            "Audience {resource} isn't a supported MSI token audience. Supported audiences: {}",
            cloud.resources.iter().map(|resource| &*resource.identifier).collect::<Vec<_>>().join(",")
        );
        return Ok(refusal(StatusCode::BAD_REQUEST, "AudienceNotSupported", &message));
    }
    let user = match user(cloud, cloud.directory.administrator.object_id()) {
        Ok(user) => user,
        Err(refused) => return Ok(refusal(StatusCode::BAD_REQUEST, "BadRequest", refused.sentence())),
    };
    let draft = Draft::of_user(&user, resource);
    let minted = cloud.token(Endpoint::CloudShell, Caching::Never, &draft, tweaks)?;
    let body = vec![
        ("access_token", json!(minted.token.expose_secret())),
        ("refresh_token", json!("")),
        ("expires_in", json!((minted.expires - cloud.clock.unix()).max(0).to_string())),
        ("expires_on", json!(minted.expires.to_string())),
        ("not_before", json!(minted.not_before.to_string())),
        ("resource", json!(resource)),
        ("token_type", json!("Bearer")),
    ];
    Ok(Answer::json(StatusCode::OK, body))
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(status, vec![("error", json!({"code": code, "message": message}))])
}
