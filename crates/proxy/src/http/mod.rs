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
use hyper::{Method, Uri};
use pgentra_observe::Exposition;
use pgentra_observe::http::{HttpReply, Observable, close_pools, status_page};
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
            let close = async |database: Option<String>| self.close_kept(database.as_deref()).await;
            return Some(close_pools(method, headers, uri.query(), close).await);
        }
        status_page(method, path, PAGE, || self.status())
    }
}
