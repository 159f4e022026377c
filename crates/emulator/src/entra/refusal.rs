//! Error responses of Entra (Microsoft: reference-error-codes).

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};

/// A refusal: an AADSTS number, an OAuth error code (RFC 6749 section 5.2) and a sentence.
#[derive(Debug)]
pub(crate) struct EntraError {
    number: u32,
    error: &'static str,
    sentence: String,
}

impl EntraError {
    pub(crate) fn new(number: u32, error: &'static str, sentence: impl Into<String>) -> Self {
        Self { number, error, sentence: sentence.into() }
    }

    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }

    /// 401 where the client failed to prove who it is, else 400.
    pub(crate) fn answer(self, cloud: &Cloud, call: &Call) -> Answer {
        let status =
            if self.error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        let trace = Uuid::new_v4();
        let correlation = correlation(call);
        let timestamp = time(cloud.clock.unix());
        let sentence = &self.sentence;
        let description =
            format!("{sentence} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}");
        let body = vec![
            ("error", json!(self.error)),
            ("error_description", json!(description)),
            ("error_codes", json!([self.number])),
            ("timestamp", json!(timestamp)),
            ("trace_id", json!(trace)),
            ("correlation_id", json!(correlation)),
            ("error_uri", json!(format!("{}error?code={}", cloud.addresses.authority, self.number))),
        ];
        Answer::json(status, body)
            .with_header("Cache-Control", "no-store, no-cache")
            .with_header("x-ms-request-id", trace.to_string())
    }
}

/// The description of an unknown resource, which the metadata service passes on.
pub(crate) fn unknown_resource(cloud: &Cloud, resource: &str) -> String {
    format!(
        "AADSTS500011: The resource principal named {resource} was not found in the tenant named {}. This can happen \
         if the application has not been installed by the administrator of the tenant or consented to by any user in \
         the tenant. You might have sent your authentication request to the wrong tenant.",
        cloud.directory.domain
    )
}

/// The tenant has no application `client`.
pub(super) fn unknown_client(cloud: &Cloud, client: &str) -> EntraError {
    let sentence = format!(
        "AADSTS700016: Application with identifier '{client}' was not found in the directory '{}'. This can happen \
         if the application has not been installed by the administrator of the tenant or consented to by any user \
         in the tenant. You may have sent your authentication request to the wrong tenant.",
        cloud.directory.domain
    );
    EntraError::new(700_016, "unauthorized_client", sentence)
}

/// Refuses a client whose service principal is disabled (Microsoft: reference-error-codes).
pub(super) fn enabled(cloud: &Cloud, client: &str, object_id: Uuid) -> Result<(), EntraError> {
    if cloud.principals.is_enabled(object_id) {
        return Ok(());
    }
    let sentence = format!("AADSTS7000112: Application '{client}' is disabled.");
    Err(EntraError::new(7_000_112, "unauthorized_client", sentence))
}

/// There is no tenant `named`.
pub(super) fn unknown_tenant(named: &str) -> EntraError {
    EntraError::new(
        90002,
        "invalid_request",
        format!(
            "AADSTS90002: Tenant '{named}' not found. Check to make sure you have the correct tenant ID and are \
             signing into the correct cloud. Check with your subscription administrator, this may happen if there are \
             no active subscriptions for the tenant."
        ),
    )
}

/// A parameter is missing from the form.
pub(super) fn missing(parameter: &str) -> EntraError {
    let sentence =
        format!("AADSTS900144: The request body must contain the following parameter: '{parameter}'.");
    EntraError::new(900_144, "invalid_request", sentence)
}

/// `2026-01-31 13:45:00Z`
pub(super) fn time(unix: i64) -> String {
    Timestamp::from_second(unix).map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default()
}

/// The id that the client gave to its request, so that both sides can find it; else a new one.
fn correlation(call: &Call) -> Uuid {
    let named = call.header("client-request-id").and_then(|id| Uuid::parse_str(id).ok());
    named.unwrap_or_else(Uuid::new_v4)
}
