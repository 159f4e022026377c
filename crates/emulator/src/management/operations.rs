//! Operations that take time (Microsoft: async-operations).

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::answers::{json_answer, refusal};
use super::resource_groups::LOCATION;
use crate::cloud::Cloud;
use crate::exchange::Answer;
use crate::subscription::{Effect, Operation};

/// The code of a change that the database refused.
pub(super) const FAILED: &str = "BadRequest";

/// Starts an operation on `resource`, which takes the time that the options say.
pub(super) fn start(cloud: &Cloud, resource: &str, effect: Effect) -> Operation {
    let seconds = i64::try_from(cloud.operation_time.as_secs()).unwrap_or(i64::MAX);
    cloud.subscription.start(resource, effect, (cloud.clock.unix(), seconds))
}

/// Tells where the operation can be watched.
pub(super) fn announced(cloud: &Cloud, answer: Answer, provider: &str, operation: &Operation) -> Answer {
    let word = match provider {
        "Microsoft.Compute" => "operations",
        "Microsoft.HorizonDb" => "operationStatuses",
        _ => "azureAsyncOperation",
    };
    answer
        .with_header("Azure-AsyncOperation", address(cloud, provider, word, operation))
        .with_header("Retry-After", retry_after(cloud, operation))
}

/// Where its result will be.
pub(super) fn location(cloud: &Cloud, provider: &str, operation: &Operation) -> String {
    address(cloud, provider, "operationResults", operation)
}

/// `GET …/operations/{id}`, `…/azureAsyncOperation/{id}` or `…/operationStatuses/{id}`
pub(super) fn status(cloud: &Cloud, id: &str) -> Result<Answer, Answer> {
    let operation = find(cloud, id)?;
    let runs = operation.runs(cloud.clock.unix());
    let failure = operation.failure.as_ref().filter(|_| !runs);
    let ended = if failure.is_some() { "Failed" } else { "Succeeded" };
    let mut body = json!({
        "name": operation.id,
        "status": if runs { "InProgress" } else { ended },
        "startTime": time(operation.started),
    });
    if !runs {
        body["endTime"] = json!(time(operation.ends));
    }
    if let Some(message) = failure {
        body["error"] = json!({"code": FAILED, "message": message});
    }
    let answer = json_answer(body);
    Ok(if runs { answer.with_header("Retry-After", retry_after(cloud, &operation)) } else { answer })
}

pub(super) fn find(cloud: &Cloud, id: &str) -> Result<Operation, Answer> {
    let known = Uuid::parse_str(id).ok().and_then(|id| cloud.subscription.operation(id, cloud.clock.unix()));
    known.ok_or_else(|| {
        let message = format!("The operation '{id}' was not found.");
        refusal(StatusCode::NOT_FOUND, "OperationNotFound", &message)
    })
}

fn address(cloud: &Cloud, provider: &str, word: &str, operation: &Operation) -> String {
    let (base, subscription) = (&cloud.addresses.management, cloud.directory.ids.subscription);
    format!(
        "{base}/subscriptions/{subscription}/providers/{provider}/locations/{LOCATION}/{word}/{}?api-version=2025-08-01",
        operation.id
    )
}

/// In whole seconds, and none for what has ended already.
pub(super) fn retry_after(cloud: &Cloud, operation: &Operation) -> String {
    (operation.ends - cloud.clock.unix()).clamp(0, 30).to_string()
}

fn time(unix: i64) -> String {
    Timestamp::from_second(unix).map(|at| at.to_string()).unwrap_or_default()
}
