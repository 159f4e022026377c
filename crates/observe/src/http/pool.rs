//! `POST /pool/close`: ends the sessions that wait for a client.

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};

use super::origin::is_foreign;
use super::reply::{HttpReply, plain};

/// Answers a request for `/pool/close`. `close` ends the sessions of a database, or of all databases,
/// and returns their number.
pub async fn close_pools<F: Future<Output = usize>>(
    method: &Method,
    headers: &HeaderMap,
    query: Option<&str>,
    close: impl FnOnce(Option<String>) -> F,
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
    let closed = close(database.map(str::to_owned)).await;
    tracing::info!(closed, database, "pooled sessions ended by /pool/close");
    plain(StatusCode::OK, &format!("closed {closed}"))
}
