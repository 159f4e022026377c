use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::Scheme;
use http::{Method, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::host::is_local;
use super::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
use super::{HttpError, HttpErrorKind, Request};
use crate::Env;

/// The proxy settings of the environment, read when first needed. `Debug` shows none: they may hold a password.
pub(super) struct Proxies {
    env: Env,
    matcher: OnceLock<Option<Matcher>>,
}

/// A proxy to go through.
pub(super) struct HttpProxy {
    pub(super) host: String,
    pub(super) port: u16,
    authorization: Option<HeaderValue>,
}

impl Proxies {
    pub(super) fn new(env: Env) -> Self {
        Self { env, matcher: OnceLock::new() }
    }

    /// The proxy for this request: only for https to a host that is not on this machine or its link.
    pub(super) fn proxy_for(&self, request: &Request) -> Result<Option<HttpProxy>, HttpError> {
        if !request.is_https() || is_local(request.host()) {
            return Ok(None);
        }
        let matcher = self.matcher.get_or_init(|| read(&self.env));
        let Some(proxy) = matcher.as_ref().and_then(|matcher| matcher.intercept(&request.uri)) else {
            return Ok(None);
        };
        if proxy.uri().scheme() != Some(&Scheme::HTTP) {
            return Err(HttpError::unusable("the proxy in HTTPS_PROXY or ALL_PROXY is not an http:// proxy"));
        }
        let host = proxy.uri().host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = proxy.uri().port_u16().unwrap_or(80);
        Ok(Some(HttpProxy { host, port, authorization: proxy.basic_auth().cloned() }))
    }
}

impl HttpProxy {
    /// Asks the proxy at the other end of `stream` to connect us to the request's host.
    pub(super) async fn tunnel(
        &self,
        stream: TcpStream,
        request: &Request,
    ) -> Result<TokioIo<Upgraded>, HttpError> {
        let refused = |why: String| HttpError::new(HttpErrorKind::Proxy, why);
        let name = format!("the proxy {}:{}", self.host, self.port);
        let broken = |cause| refused(format!("no whole HTTP answer from {name}")).caused_by(cause);
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let bracketed = if request.host().contains(':') {
            format!("[{}]", request.host())
        } else {
            request.host().into()
        };
        let target = format!("{bracketed}:{}", request.port());
        let unusable = |_| HttpError::unusable("the host cannot be named to a proxy");
        let mut connect = hyper::Request::new(Empty::<Bytes>::new());
        *connect.method_mut() = Method::CONNECT;
        *connect.uri_mut() = target.parse::<Uri>().map_err(unusable)?;
        connect.headers_mut().insert(
            HOST,
            HeaderValue::from_str(&target)
                .map_err(|_| HttpError::unusable("the host cannot be named to a proxy"))?,
        );
        if let Some(value) = &self.authorization {
            connect.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
        }
        // The connection ends when the upgraded stream is taken, or when the proxy refuses the tunnel.
        let (answer, ended) = futures_util::future::join(
            async {
                // Moved into this block, so that it is dropped at the end: hyper closes the connection with its sender.
                let mut sender = sender;
                let answer = sender.send_request(connect).await.map_err(broken)?;
                let status = answer.status();
                if !status.is_success() {
                    return Err(refused(format!("{name} refused to connect to {target}: {status}")));
                }
                Ok(answer)
            },
            connection.with_upgrades(),
        )
        .await;
        let answer = answer?;
        ended.map_err(broken)?;
        hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(broken)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

fn read(env: &Env) -> Option<Matcher> {
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| env.get(name));
    let https = first(["HTTPS_PROXY", "https_proxy"]).or_else(|| first(["ALL_PROXY", "all_proxy"]))?;
    let except = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    Some(Matcher::builder().https(https).no(except).build())
}
