//! The page of a local cloud: who signs in, with which token, and what checks it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page, for people |
//! | `GET /state.json` | what it shows |
//! | `POST /clock/advance?seconds=N` | the clock is advanced |
//! | `POST /faults/set?fault=NAME&endpoint=NAME&times=N` | a fault is switched on; without `times` until it is switched off |
//! | `POST /faults/clear?fault=NAME&endpoint=NAME` | it is switched off; without names all are |
//!
//! Every request names this address as its host. A change comes from the page itself: it carries the
//! value that only the page has, and no other site's origin.

mod connection_strings;
mod plain_text;
mod source;
mod state;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::header::{HOST, HeaderMap};
use hyper::{Method, StatusCode, Uri};
use pgentra_observe::http::{
    HttpHandler, HttpReply, is_foreign, only_get, page, plain, respond, serve_requests,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::state::PageState;
use crate::clock::FURTHEST;
use crate::error::Failure;
use crate::faults::{KnownEndpoint, KnownFault, MOST_TIMES};

pub(crate) use self::connection_strings::{HostStrings, ServerPlace};
pub(crate) use self::source::PageSource;

const PAGE: &str = include_str!("page.html");

/// The header with the value that only the page has. A page of another site cannot set it without
/// asking first, and is not allowed to.
const KEY_HEADER: &str = "pgentra-page-key";

/// The page of a local cloud, on loopback. Dropping it stops it.
pub(crate) struct CloudPage {
    address: SocketAddr,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
    _source: Arc<PageSource>,
    _stop_on_drop: DropGuard,
}

impl CloudPage {
    /// Serves the page on this port of 127.0.0.1 if it is free, and on any free one otherwise or if
    /// it is 0.
    ///
    /// # Errors
    /// If no port can be bound.
    pub(crate) async fn start(source: PageSource, preferred_port: u16) -> Result<Self, Failure> {
        let failed = |error| Failure::machine("cannot listen for the page of the local cloud", error);
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, preferred_port)).await {
            Ok(listener) => listener,
            Err(error) if preferred_port != 0 => {
                tracing::warn!(port = preferred_port, %error, "the page's usual port is taken; another one serves in this run");
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let address = listener.local_addr().map_err(failed)?;
        let source = Arc::new(source);
        let key = Uuid::new_v4().simple().to_string().into();
        // An answer that still runs keeps nothing of a cloud that stops.
        let handler = PageHandler { port: address.port(), key, source: Arc::downgrade(&source) };
        let stop = CancellationToken::new();
        let served = Some(tokio::spawn(serve_requests(listener, handler, stop.clone())));
        let _stop_on_drop = stop.clone().drop_guard();
        Ok(Self { address, stop, served, _source: source, _stop_on_drop })
    }

    /// Its address, such as `http://127.0.0.1:18500/`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Closes the listener: from then on no request changes anything.
    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            let _ = served.await;
        }
    }

    /// The same, for good.
    pub(crate) async fn stop(mut self) {
        self.end().await;
    }
}

impl fmt::Debug for CloudPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudPage").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Answers the requests of the page.
#[derive(Clone)]
struct PageHandler {
    port: u16,
    /// The value that only the page has.
    key: Arc<str>,
    source: Weak<PageSource>,
}

impl HttpHandler for PageHandler {
    async fn answer(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> HttpReply {
        let Some(source) = self.source.upgrade() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the local cloud stops");
        };
        if !names_port(headers, self.port) {
            let text = "this listener answers to its own address alone";
            return plain(StatusCode::MISDIRECTED_REQUEST, text);
        }
        match uri.path() {
            "/" => only_get(method).unwrap_or_else(|| {
                let text = plain_text::plain_text(&PageState::of(&source));
                page(PAGE, &[("{{key}}", &self.key), ("{{text}}", &text)])
            }),
            "/state.json" if is_of_another_site(headers) => foreign(),
            "/state.json" => only_get(method).unwrap_or_else(|| state(&source)),
            path @ ("/clock/advance" | "/faults/set" | "/faults/clear") => {
                if let Some(refusal) = self.refused(method, headers) {
                    return refusal;
                }
                let query = uri.query().unwrap_or_default();
                match changed(&source, path, query).await {
                    Ok(text) => plain(StatusCode::OK, text),
                    Err(text) => plain(StatusCode::BAD_REQUEST, &text),
                }
            }
            _ => plain(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }
}

impl PageHandler {
    /// The refusal of a change that is not the page's own.
    fn refused(&self, method: &Method, headers: &HeaderMap) -> Option<HttpReply> {
        if method != Method::POST {
            return Some(plain(StatusCode::METHOD_NOT_ALLOWED, "POST it: this changes the local cloud"));
        }
        if is_foreign(headers) || is_of_another_site(headers) {
            return Some(foreign());
        }
        let mut keys = headers.get_all(KEY_HEADER).iter();
        let is_ours =
            matches!((keys.next(), keys.next()), (Some(key), None) if key.as_bytes() == self.key.as_bytes());
        (!is_ours).then(|| plain(StatusCode::FORBIDDEN, "only the page may do this; load it again"))
    }
}

fn foreign() -> HttpReply {
    plain(StatusCode::FORBIDDEN, "a page of another site may not do this")
}

/// Whether the Host header is this listener. With DNS rebinding, it is the name of the attacker's page.
fn names_port(headers: &HeaderMap, port: u16) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    ["127.0.0.1", "localhost"].iter().any(|name| host.as_bytes() == format!("{name}:{port}").as_bytes())
}

/// Whether a browser says that another site sent the request (Fetch Metadata).
fn is_of_another_site(headers: &HeaderMap) -> bool {
    headers.get_all("sec-fetch-site").iter().any(|site| !["same-origin", "none"].iter().any(|it| site == it))
}

fn state(source: &PageSource) -> HttpReply {
    match serde_json::to_string(&PageState::of(source)) {
        Ok(text) => respond(StatusCode::OK, "application/json", text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Makes a change.
async fn changed(source: &PageSource, path: &str, query: &str) -> Result<&'static str, String> {
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let value = |name: &str| query.iter().find(|(it, _)| it == name).map(|(_, value)| &**value);
    if path == "/clock/advance" {
        let seconds = value("seconds").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let by = seconds.filter(|by| *by <= FURTHEST).ok_or("takes ?seconds=N, a year at most")?;
        source.clock.advance(by);
        tracing::info!(seconds = by.as_secs(), "the clock was advanced on the page");
        return Ok("advanced");
    }
    let faults = &source.faults;
    if path == "/faults/clear" && query.is_empty() {
        faults.clear_all();
        return Ok("cleared");
    }
    let known =
        value("fault").and_then(KnownFault::named).ok_or("takes ?fault=NAME of a fault on the page")?;
    let endpoint = value("endpoint").and_then(KnownEndpoint::named);
    let endpoint = endpoint.ok_or("takes &endpoint=NAME of an endpoint on the page")?;
    if path == "/faults/clear" {
        faults.clear(known, Some(endpoint));
        return Ok("cleared");
    }
    let times = value("times").map(|text| text.parse().ok().filter(|times| (1..=MOST_TIMES).contains(times)));
    if times == Some(None) {
        return Err("takes &times=N from 1 to 1000, or no times for all requests".to_owned());
    }
    faults.set(known, endpoint, times.flatten()).await?;
    Ok("set")
}
