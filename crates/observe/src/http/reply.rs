//! The answer to each request.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::origin::{is_foreign, names_loopback};
use crate::Exposition;

const TEXT: &str = "text/plain; charset=utf-8";

/// The answer to a request.
pub type HttpReply = Response<Full<Bytes>>;

/// A program whose state is shown.
pub trait Observable: Clone + Send + Sync + 'static {
    /// Whether every listener is up.
    fn has_started(&self) -> bool;

    /// Whether clients are to be sent here, and the answer to the probe in words. It takes less
    /// than a second, after which Kubernetes gives up.
    fn readiness(&self) -> impl Future<Output = Result<String, String>> + Send;

    /// All metrics, in the format that a request with this header `Accept` gets.
    fn metrics(&self, accept: &str) -> Exposition;

    /// The token that ends the program.
    fn stop(&self) -> &CancellationToken;

    /// What an admin listener answers beside that; `None`: nothing is there. By default nothing is.
    fn admin(
        &self,
        _method: &Method,
        _headers: &HeaderMap,
        _uri: &Uri,
    ) -> impl Future<Output = Option<HttpReply>> + Send {
        async { None }
    }
}

pub(super) async fn answer(
    (method, headers, uri): (&Method, &HeaderMap, &Uri),
    scope: Scope,
    telemetry: &impl Observable,
) -> HttpReply {
    let path = uri.path();
    if scope == Scope::Admin {
        if !names_loopback(headers) {
            let text = "this listener answers to localhost, 127.0.0.1 and [::1] alone";
            return plain(StatusCode::MISDIRECTED_REQUEST, text);
        }
        if path == "/quitquitquit" {
            return quit(method, headers, telemetry);
        }
        if let Some(answer) = telemetry.admin(method, headers, uri).await {
            return answer;
        }
    }
    if !matches!(path, "/startup" | "/readiness" | "/liveness" | "/metrics") {
        return plain(StatusCode::NOT_FOUND, "there is nothing here");
    }
    if let Some(refusal) = only_get(method) {
        return refusal;
    }
    match path {
        "/startup" if telemetry.has_started() => plain(StatusCode::OK, "started"),
        "/startup" => plain(StatusCode::SERVICE_UNAVAILABLE, "starting: the listeners are not up yet"),
        "/liveness" => plain(StatusCode::OK, "alive"),
        "/readiness" => match telemetry.readiness().await {
            Ok(text) => plain(StatusCode::OK, &text),
            Err(text) => plain(StatusCode::SERVICE_UNAVAILABLE, &text),
        },
        _ => {
            let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let exposition = telemetry.metrics(accept);
            respond(StatusCode::OK, exposition.content_type, exposition.text)
        }
    }
}

/// The answer to a request by another method than GET and HEAD.
pub fn only_get(method: &Method) -> Option<HttpReply> {
    if [Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only");
    answer.headers_mut().insert("allow", HeaderValue::from_static("GET, HEAD"));
    Some(answer)
}

fn quit(method: &Method, headers: &HeaderMap, telemetry: &impl Observable) -> HttpReply {
    if method != Method::POST {
        return plain(StatusCode::FORBIDDEN, "POST it: the proxy then drains and ends");
    }
    if is_foreign(headers) {
        return plain(StatusCode::FORBIDDEN, "a page of another site may not end the proxy");
    }
    tracing::info!("shutting down: requested by /quitquitquit");
    telemetry.stop().cancel();
    plain(StatusCode::OK, "draining")
}

/// A text as the answer; it gets a line feed.
pub fn plain(status: StatusCode, text: &str) -> HttpReply {
    respond(status, TEXT, format!("{text}\n"))
}

/// An answer that no cache keeps.
pub fn respond(status: StatusCode, content_type: &'static str, text: String) -> HttpReply {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    for (name, value) in [
        ("content-type", content_type),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
