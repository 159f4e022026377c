//! The answer to each request.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::Scope;
use super::origin::{is_foreign, names_loopback};
use crate::telemetry::Telemetry;

const PAGE: &str = include_str!("status.html");

/// Placeholder in the page for the nonce that its script and style share with the content security
/// policy.
const NONCE: &str = "{{nonce}}";

const TEXT: &str = "text/plain; charset=utf-8";

/// How long a readiness probe waits for a token: Kubernetes gives up after a second.
const TOKEN_WAIT: Duration = Duration::from_millis(700);

type HttpReply = Response<Full<Bytes>>;

pub(super) async fn answer<B>(request: &Request<B>, scope: Scope, telemetry: &Telemetry) -> HttpReply {
    let (headers, path) = (request.headers(), request.uri().path());
    let admin = scope == Scope::Admin;
    if admin && !names_loopback(headers) {
        let text = "this listener answers to localhost, 127.0.0.1 and [::1] alone";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if admin && path == "/quitquitquit" {
        return quit(request.method(), headers, telemetry);
    }
    if admin && path == "/pool/close" {
        return close_pools(request.method(), headers, request.uri().query(), telemetry).await;
    }
    let known = match path {
        "/startup" | "/readiness" | "/liveness" | "/metrics" => true,
        "/" | "/status.json" => admin,
        _ => false,
    };
    if !known {
        return plain(StatusCode::NOT_FOUND, "there is nothing here");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only");
        answer.headers_mut().insert("allow", HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/startup" if telemetry.has_started() => plain(StatusCode::OK, "started"),
        "/startup" => plain(StatusCode::SERVICE_UNAVAILABLE, "starting: the listeners are not up yet"),
        "/liveness" => plain(StatusCode::OK, "alive"),
        "/readiness" => {
            telemetry.await_tokens(TOKEN_WAIT).await;
            let summary = telemetry.summary();
            match telemetry.readiness() {
                Ok(()) => plain(StatusCode::OK, &format!("ready\n{summary}")),
                Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n{summary}")),
            }
        }
        "/metrics" => {
            let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let exposition = telemetry.metrics(accept);
            respond(StatusCode::OK, exposition.content_type, exposition.text)
        }
        "/status.json" => match serde_json::to_string(&telemetry.status()) {
            Ok(text) => respond(StatusCode::OK, "application/json", text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        _ => page(),
    }
}

fn quit(method: &Method, headers: &HeaderMap, telemetry: &Telemetry) -> HttpReply {
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

/// Ends pooled sessions, for example before their database is dropped.
async fn close_pools(
    method: &Method,
    headers: &HeaderMap,
    query: Option<&str>,
    telemetry: &Telemetry,
) -> HttpReply {
    if method != Method::POST {
        return plain(StatusCode::FORBIDDEN, "POST it: sessions that wait for a client are then ended");
    }
    if is_foreign(headers) {
        return plain(StatusCode::FORBIDDEN, "a page of another site may not end sessions");
    }
    let query: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let database = match &query[..] {
        [] => None,
        [(name, database)] if name == "database" && !database.is_empty() => Some(&**database),
        _ => return plain(StatusCode::BAD_REQUEST, "takes ?database=NAME, or nothing for all databases"),
    };
    let closed = telemetry.close_kept(database).await;
    tracing::info!(closed, database, "pooled sessions ended by /pool/close");
    plain(StatusCode::OK, &format!("closed {closed}"))
}

/// The status page. Its policy allows no other script or style, and requests to this listener
/// alone.
fn page() -> HttpReply {
    let policy = |nonce: &str| {
        format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    };
    let made = nonce().and_then(|nonce| {
        let policy = HeaderValue::try_from(policy(&nonce)).map_err(io::Error::other)?;
        Ok((policy, PAGE.replace(NONCE, &nonce)))
    });
    match made {
        Ok((policy, text)) => {
            let mut answer = respond(StatusCode::OK, "text/html; charset=utf-8", text);
            answer.headers_mut().insert("content-security-policy", policy);
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn plain(status: StatusCode, text: &str) -> HttpReply {
    respond(status, TEXT, format!("{text}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> HttpReply {
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
