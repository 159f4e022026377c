//! The HTTP listener of a proxy. Beside what every [`HttpServer`] answers, an admin listener has:
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the status page, for people |
//! | `GET /status.json` | what it shows |
//! | `POST /pool/close?database=NAME` | server sessions of this database that wait for a client are ended; without a name, all of them |
//!
//! `GET /readiness` also says how many targets serve, are idle and fail, with a line for each that
//! fails.

use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode, Uri};
use pgentra_observe::Exposition;
use pgentra_observe::http::{HttpReply, Observable, is_foreign, plain, status_page};
use tokio_util::sync::CancellationToken;

pub use pgentra_observe::http::{HttpServer, Scope};

use crate::telemetry::Telemetry;

const PAGE: &str = include_str!("status.html");

/// How long a readiness probe waits for a token: Kubernetes gives up after a second.
const TOKEN_WAIT: Duration = Duration::from_millis(700);

impl Observable for Telemetry {
    fn has_started(&self) -> bool {
        Self::has_started(self)
    }

    async fn readiness(&self) -> Result<String, String> {
        self.await_tokens(TOKEN_WAIT).await;
        let summary = self.summary();
        match Self::readiness(self) {
            Ok(()) => Ok(format!("ready\n{summary}")),
            Err(reason) => Err(format!("{reason}\n{summary}")),
        }
    }

    fn metrics(&self, accept: &str) -> Exposition {
        Self::metrics(self, accept)
    }

    fn stop(&self) -> &CancellationToken {
        Self::stop(self)
    }

    async fn admin(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> Option<HttpReply> {
        let path = uri.path();
        if path == "/pool/close" {
            return Some(close_pools(method, headers, uri.query(), self).await);
        }
        status_page(method, path, PAGE, || self.status())
    }
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
