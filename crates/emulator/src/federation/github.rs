//! Tokens of workflows at GitHub (GitHub: "OpenID Connect reference").

use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::issuers::GITHUB_SUBJECT;
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;

/// The audience where a workflow asks for none: the owner of the repository.
const DEFAULT_AUDIENCE: &str = "https://github.com/my-organization";

#[derive(Serialize)]
struct Claims<'a> {
    jti: Uuid,
    sub: &'static str,
    aud: &'a str,
    #[serde(rename = "ref")]
    branch: &'static str,
    repository: &'static str,
    repository_owner: &'static str,
    run_id: &'static str,
    run_attempt: &'static str,
    event_name: &'static str,
    ref_type: &'static str,
    runner_environment: &'static str,
    iss: &'a str,
    nbf: i64,
    exp: i64,
    iat: i64,
}

/// `GET $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…` with `Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN`
pub(crate) fn workflow_token(cloud: &Cloud, call: &Call) -> Result<Answer, KeyError> {
    if call.method != Method::GET {
        return Ok(Answer::text(StatusCode::METHOD_NOT_ALLOWED, ""));
    }
    if call.bearer() != Some(cloud.secrets.github.expose_secret()) {
        return Ok(Answer::json(StatusCode::UNAUTHORIZED, vec![("message", json!("Unauthorized"))]));
    }
    let federation = &cloud.federation;
    let now = federation.clock.unix();
    let lifetime = i64::try_from(federation.lifetimes.workflow.as_secs()).unwrap_or(i64::MAX);
    let token = federation.github.sign(&Claims {
        jti: Uuid::new_v4(),
        sub: GITHUB_SUBJECT,
        aud: call.query.get("audience").unwrap_or(DEFAULT_AUDIENCE),
        branch: "refs/heads/main",
        repository: "my-organization/my-repository",
        repository_owner: "my-organization",
        run_id: "1",
        run_attempt: "1",
        event_name: "push",
        ref_type: "branch",
        runner_environment: "self-hosted",
        iss: &federation.github.url,
        nbf: now,
        exp: now.saturating_add(lifetime),
        iat: now,
    })?;
    let token = token.expose_secret();
    Ok(Answer::json(StatusCode::OK, vec![("count", json!(token.len())), ("value", json!(token))]))
}
