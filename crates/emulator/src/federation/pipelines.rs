//! Tokens of service connections at Azure Pipelines (Microsoft: azure-devops, "Oidctoken - Create").

use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::issuers::{EXCHANGE_AUDIENCE, Federation, PIPELINES_SUBJECT};
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;

#[derive(Serialize)]
struct Claims<'a> {
    jti: Uuid,
    sub: &'static str,
    aud: &'static str,
    iss: &'a str,
    nbf: i64,
    exp: i64,
    iat: i64,
}

/// The path of `SYSTEM_OIDCREQUESTURI`.
pub(crate) fn request_path(federation: &Federation) -> String {
    // There is one plan and one job. Clients treat their ids as opaque, so one id serves for both.
    let id = federation.service_connection;
    format!("/pipelines/my-project/_apis/distributedtask/hubs/build/plans/{id}/jobs/{id}/oidctoken")
}

/// `POST $SYSTEM_OIDCREQUESTURI?api-version=7.1&serviceConnectionId=…` with `Authorization: Bearer $SYSTEM_ACCESSTOKEN`
pub(crate) fn connection_token(cloud: &Cloud, call: &Call) -> Result<Answer, KeyError> {
    let federation = &cloud.federation;
    if call.path != request_path(federation) {
        return Ok(refusal(StatusCode::NOT_FOUND, "There is no such plan or job."));
    }
    if call.bearer() != Some(cloud.secrets.pipelines.expose_secret()) {
        return Ok(unauthorized(call));
    }
    if call.method != Method::POST {
        return Ok(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "The requested resource does not support this method.",
        ));
    }
    if call.query.get("api-version").is_none() {
        return Ok(refusal(StatusCode::BAD_REQUEST, "No api-version was supplied for the request."));
    }
    let asked = call.query.get("serviceConnectionId").and_then(|id| Uuid::parse_str(id).ok());
    if asked != Some(federation.service_connection) {
        return Ok(refusal(StatusCode::NOT_FOUND, "The service connection was not found."));
    }
    let now = federation.clock.unix();
    let lifetime = i64::try_from(federation.lifetimes.workflow.as_secs()).unwrap_or(i64::MAX);
    let token = federation.pipelines.sign(&Claims {
        jti: Uuid::new_v4(),
        sub: PIPELINES_SUBJECT,
        aud: EXCHANGE_AUDIENCE,
        iss: &federation.pipelines.url,
        nbf: now,
        exp: now.saturating_add(lifetime),
        iat: now,
    })?;
    Ok(traced(Answer::json(StatusCode::OK, vec![("oidcToken", json!(token.expose_secret()))])))
}

/// 401; but a client that does not ask for it is sent to a page where a person could sign in.
fn unauthorized(call: &Call) -> Answer {
    if call.header("x-tfs-fedauthredirect").is_some_and(|value| value.eq_ignore_ascii_case("suppress")) {
        return traced(Answer::text(StatusCode::UNAUTHORIZED, ""));
    }
    traced(Answer::text(StatusCode::FOUND, "").with_header("Location", "/pipelines/_signin"))
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    traced(Answer::json(status, vec![("message", json!(message))]))
}

/// The headers that support asks for.
fn traced(answer: Answer) -> Answer {
    answer
        .with_header("x-vss-e2eid", Uuid::new_v4().to_string())
        .with_header("x-msedge-ref", format!("Ref A: {}", Uuid::new_v4().simple()))
}
