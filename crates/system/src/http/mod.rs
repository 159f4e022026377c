//! The HTTP seam: one request, one connection, one answer, with every length and time bounded.
//!
//! - The answer's body is at most [`MAX_BODY`] bytes, its headers 64 in number and 64 KiB in size.
//! - Redirects are never followed: a secret header would go along.
//! - A proxy (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) is used only for https to hosts that are neither loopback nor
//!   link-local: metadata services answer the machine itself, and plain http through a proxy would show it the secret.
//! - `localhost` means 127.0.0.1 alone, without asking a resolver: on a port where nothing listens there, another user of
//!   the machine could listen on ::1 and would get a secret header. `[::1]` is written out.
//! - Certificates are checked against the platform's roots, the roots in the file that `SSL_CERT_FILE` names, and
//!   those added with [`HttpClient::with_extra_roots`]. No TLS configuration is built before the first https request.

mod dial;
mod error;
mod host;
mod limits;
mod proxy;
mod request;
mod response;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use self::dial::Dialer;
pub use self::error::{HttpError, HttpErrorKind};
use self::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
pub use self::request::Request;
pub use self::response::Response;
pub use self::tls::{authorities, provider};
use crate::secret::SecretBuffer;
use crate::{Env, Files, span};

/// The longest answer that is read. The largest genuine ones, tokens with many groups and key sets of a tenant, are below
/// 100 KiB.
pub const MAX_BODY: usize = 1024 * 1024;

/// Sends requests. Cheap to clone; clones share the TLS configuration.
#[derive(Clone, Debug)]
pub struct HttpClient {
    dialer: Dialer,
}

impl HttpClient {
    /// A client that takes proxies and extra roots from these variables and files.
    pub fn new(env: &Env, files: &Files) -> Self {
        let dialer = Dialer {
            routes: Arc::default(),
            proxies: Arc::new(proxy::Proxies::new(env.clone())),
            tls: Arc::new(tls::Platform::new(env.clone(), files.clone())),
        };
        Self { dialer }
    }

    /// Dials `address` whenever a URL names this host and port. Names, certificates and headers stay as the URL says.
    pub fn with_route(mut self, host: &str, port: u16, address: SocketAddr) -> Self {
        Arc::make_mut(&mut self.dialer.routes).insert((host.to_owned(), port), address);
        self
    }

    /// Trusts these roots (PEM) too.
    pub fn with_extra_roots(mut self, pem: &[u8]) -> Result<Self, HttpError> {
        self.dialer.tls = Arc::new(self.dialer.tls.with_roots(tls::certificates(pem)?));
        Ok(self)
    }

    /// Sends a GET request and reads the whole response, as [`HttpClient::send`] does.
    pub async fn get(&self, url: &str) -> Result<Response, HttpError> {
        self.send(Request::get(url)?).await
    }

    /// Sends a POST request with an `application/x-www-form-urlencoded` body, as [`HttpClient::send`] does.
    pub async fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<Response, HttpError> {
        self.send(Request::post(url)?.form(form)).await
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// Everything that prevents a whole answer; a refusal is an answer.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let limit = request.limit;
        let ends = Instant::now() + limit;
        let host = request.authority();
        match timeout_at(ends, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::new(
                HttpErrorKind::Timeout,
                format!("no whole answer from {host} within {}", span::shown(limit)),
            )),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Response, HttpError> {
        let stream = self.dialer.dial(&request).await?;
        let host = request.authority();
        let broken = |cause| {
            HttpError::new(HttpErrorKind::Protocol, format!("no whole HTTP answer from {host}"))
                .caused_by(cause)
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let endpoint = request.endpoint();
        let (message, secrets) = request.into_message();
        let answer = async {
            let answer = sender.send_request(message).await.map_err(broken)?;
            let (head, body) = answer.into_parts();
            let mut body = Limited::new(body, MAX_BODY);
            let mut read = SecretBuffer::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|cause| unreadable(cause, &host))?;
                read.extend(frame.data_ref().map_or(&[][..], |data| data));
            }
            Ok(Response::new(head, read.into_bytes(), endpoint, secrets))
        };
        // The connection is polled here, not in a task: dropping this future closes the socket. When the connection
        // ends, `answer` already has every byte, and fails by itself if the response is incomplete.
        let drive = async {
            let _ended = connection.await;
            std::future::pending::<Infallible>().await
        };
        match select(pin!(answer), pin!(drive)).await {
            Either::Left((result, _)) => result,
            Either::Right((never, _)) => match never {},
        }
    }
}

fn unreadable(cause: Box<dyn std::error::Error + Send + Sync>, host: &str) -> HttpError {
    if cause.is::<http_body_util::LengthLimitError>() {
        return HttpError::new(
            HttpErrorKind::TooLarge,
            format!("the answer of {host} is longer than {MAX_BODY} bytes"),
        );
    }
    HttpError::new(HttpErrorKind::Protocol, format!("the answer of {host} ended early"))
        .caused_by_boxed(cause)
}

#[cfg(test)]
mod tests;
