//! The agent of an Azure Arc server (Microsoft: azure-arc, managed-identity-authentication): who can read a file that
//! it writes may have a token.

use hyper::StatusCode;
use serde_json::json;

use crate::arc_agent::Agent;
use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::directory::{Identity, IdentitySelector};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::imds::{permitted, refusal, token_body};
use crate::keys::KeyError;
use crate::mint::Draft;

pub(crate) const PATH: &str = "/metadata/identity/oauth2/token";

/// `GET /metadata/identity/oauth2/token`, first without, then with `Authorization: Basic` and the content of the file.
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let Some(agent) = &cloud.arc else { return Ok(Answer::text(StatusCode::NOT_FOUND, "")) };
    if let Err(refused) = permitted(call) {
        return Ok(refused);
    }
    let Some(resource) = call.query.get("resource") else {
        let description = "Required query variable 'resource' is missing";
        return Ok(refusal(StatusCode::BAD_REQUEST, "invalid_request", description));
    };
    let offered = call.header("authorization").and_then(|value| value.strip_prefix("Basic "));
    if !offered.is_some_and(|offered| agent.redeem(offered)) {
        return Ok(challenged(agent));
    }
    let found = identity(cloud, agent, call).filter(|(identity, _)| cloud.is_enabled(identity));
    let Some((identity, echo)) = found else {
        return Ok(refusal(StatusCode::BAD_REQUEST, "invalid_request", "Identity not found"));
    };
    if cloud.resource(resource).is_none() {
        let description = crate::entra::unknown_resource(cloud, resource);
        return Ok(refusal(StatusCode::BAD_REQUEST, "invalid_resource", &description));
    }
    let minted =
        cloud.token(Endpoint::Arc, Caching::Platform, &Draft::of_identity(&identity, resource), tweaks)?;
    let mut body = token_body(cloud, &identity, resource, &minted);
    body.extend(echo.filter(|(name, _)| *name != "client_id").map(|(name, value)| (name, json!(value))));
    Ok(Answer::json(StatusCode::OK, body))
}

fn challenged(agent: &Agent) -> Answer {
    match agent.challenge() {
        Ok(file) => Answer::text(StatusCode::UNAUTHORIZED, "")
            .with_header("Www-Authenticate", format!("Basic realm={}", file.display())),
        Err(error) => {
            tracing::error!(%error, "cannot write the challenge file");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "cannot write the challenge file")
        }
    }
}

/// The identity that the agent answers for, and the selector that it confirms.
fn identity<'a>(
    cloud: &Cloud,
    agent: &Agent,
    call: &'a Call,
) -> Option<(Identity, Option<(&'static str, &'a str)>)> {
    let named = ["client_id", "object_id", "msi_res_id"]
        .into_iter()
        .find_map(|name| call.query.get(name).map(|value| (name, value)))
        .filter(|_| agent.options.user_assigned);
    let Some((name, value)) = named else { return Some((cloud.machine.system_assigned()?, None)) };
    let selector = match name {
        "client_id" => IdentitySelector::Client(value),
        "object_id" => IdentitySelector::Object(value),
        _ => IdentitySelector::Resource(value),
    };
    let found = cloud.machine.identities().into_iter().find(|identity| selector.matches(identity))?;
    Some((found, named))
}
