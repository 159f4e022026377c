//! Results of operations that take time (Microsoft: async-operations).

use hyper::StatusCode;

use super::answers::{json_answer, refusal};
use super::operations::{FAILED, find, location, retry_after};
use super::{configurations, servers};
use crate::cloud::Cloud;
use crate::exchange::Answer;

/// `GET …/operationResults/{id}`: 202 while it runs, then the error, the resource, or 204 if there is none any more.
pub(super) fn result(cloud: &Cloud, id: &str) -> Result<Answer, Answer> {
    let operation = find(cloud, id)?;
    if operation.runs(cloud.clock.unix()) {
        let here = location(cloud, servers::PROVIDER, &operation);
        let answer = Answer::text(StatusCode::ACCEPTED, "").with_header("Location", here);
        return Ok(answer.with_header("Retry-After", retry_after(cloud, &operation)));
    }
    if let Some(message) = &operation.failure {
        return Err(refusal(StatusCode::BAD_REQUEST, FAILED, message));
    }
    if let Some(parameter) = configurations::found(cloud, &operation.resource) {
        return Ok(json_answer(parameter));
    }
    let object_id = operation.resource.rsplit('/').next().and_then(|id| id.parse().ok());
    let found = object_id.and_then(|id| servers::found(cloud, id));
    Ok(found.map_or_else(|| Answer::text(StatusCode::NO_CONTENT, ""), json_answer))
}
