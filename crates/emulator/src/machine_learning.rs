//! Azure Machine Learning: the request of App Service's protocol of 2017, with an answer of its own. Undocumented; as
//! the Microsoft authentication libraries speak it (`MachineLearningManagedIdentitySource`).

use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::directory::{Identity, IdentitySelector};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::mint::Draft;

pub(crate) const PATH: &str = "/azureml/token";

/// `GET /azureml/token`: `clientid` must be there, for the system-assigned identity too, and the expiry is a number.
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let bad = |message: &str| Ok(refusal(StatusCode::BAD_REQUEST, "BadRequest", message));
    if call.method != Method::GET {
        return Ok(refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Only GET is supported."));
    }
    if call.header("secret") != Some(cloud.secrets.machine_learning.expose_secret()) {
        return Ok(refusal(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "The header 'secret' is missing or wrong.",
        ));
    }
    if call.query.get("api-version") != Some("2017-09-01") {
        return bad("The api-version is missing or not supported.");
    }
    let (Some(resource), Some(client)) = (call.query.get("resource"), call.query.get("clientid")) else {
        return bad("The parameters 'resource' and 'clientid' are required.");
    };
    let selector = IdentitySelector::Client(client);
    let fits = |identity: &Identity| selector.matches(identity) && cloud.is_enabled(identity);
    let Some(identity) = cloud.machine.identities().into_iter().find(fits) else {
        return bad("No managed identity with this client id is assigned.");
    };
    if cloud.resource(resource).is_none() {
        let message = "The token service refused the resource.";
        return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message));
    }
    let draft = Draft::of_identity(&identity, resource);
    let minted = cloud.token(Endpoint::MachineLearning, Caching::Platform, &draft, tweaks)?;
    let body = vec![
        ("access_token", json!(minted.token.expose_secret())),
        ("expires_on", json!(minted.expires)),
        ("resource", json!(resource)),
        ("token_type", json!("Bearer")),
    ];
    Ok(Answer::json(StatusCode::OK, body))
}

fn refusal(status: StatusCode, error: &str, message: &str) -> Answer {
    Answer::json(status, vec![("error", json!(error)), ("message", json!(message))])
}
