//! The forms of Resource Manager's answers and requests.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::exchange::{Answer, Call};

/// 404 in Resource Manager's words.
pub(super) fn not_found(kind: &str, name: &str, group: &str) -> Answer {
    let message = format!(
        "The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to \
         https://aka.ms/ARMResourceNotFoundFix"
    );
    refusal(StatusCode::NOT_FOUND, "ResourceNotFound", &message)
}

/// The error form of Resource Manager (Microsoft: resource-manager common types, `ErrorResponse`).
pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(status, vec![("error", json!({"code": code, "message": message}))])
}

pub(super) fn json_answer(value: Value) -> Answer {
    with_status(StatusCode::OK, value)
}

pub(super) fn with_status(status: StatusCode, value: Value) -> Answer {
    Answer::text(status, value.to_string()).typed("application/json; charset=utf-8")
}

/// A collection of Resource Manager.
pub(super) fn collection(values: Vec<Value>) -> Answer {
    json_answer(json!({ "value": values }))
}

/// The body as a JSON object.
pub(super) fn body(call: &Call) -> Result<Value, Answer> {
    let parsed = serde_json::from_slice(&call.body).ok().filter(Value::is_object);
    parsed.ok_or_else(|| {
        let message = "The request content was invalid and could not be deserialized.";
        refusal(StatusCode::BAD_REQUEST, "InvalidRequestContent", message)
    })
}
