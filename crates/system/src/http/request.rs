use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Uri};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use super::host::is_loopback;
use super::{HttpError, HttpErrorKind};

/// How long a connection may take to be established, unless a source says otherwise.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the whole exchange may take, unless a source says otherwise.
const LIMIT: Duration = Duration::from_secs(30);

/// The longest URL that is sent; servers and proxies refuse longer ones.
const MAX_URL: usize = 8 * 1024;

/// One HTTP request. `Debug` shows the method and the URL without its query.
pub struct Request {
    pub(super) uri: Uri,
    pub(super) connect_limit: Duration,
    pub(super) limit: Duration,
    pub(super) tls: Option<(Arc<ClientConfig>, Option<ServerName<'static>>)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    secrets: Vec<Zeroizing<String>>,
}

impl Request {
    /// A GET request. Fails on a URL that does not parse.
    pub fn get(url: &str) -> Result<Self, HttpError> {
        Self::new(Method::GET, url)
    }

    /// A POST request with an empty body.
    pub fn post(url: &str) -> Result<Self, HttpError> {
        Self::new(Method::POST, url)
    }

    /// A PUT request with an empty body. Fails on a URL that does not parse.
    pub fn put(url: &str) -> Result<Self, HttpError> {
        Self::new(Method::PUT, url)
    }

    /// A PATCH request with an empty body. Fails on a URL that does not parse.
    pub fn patch(url: &str) -> Result<Self, HttpError> {
        Self::new(Method::PATCH, url)
    }

    /// A DELETE request. Fails on a URL that does not parse.
    pub fn delete(url: &str) -> Result<Self, HttpError> {
        Self::new(Method::DELETE, url)
    }

    /// Sets the body to this JSON text and `Content-Type` to `application/json`.
    pub fn json(mut self, text: String) -> Self {
        self.body = Bytes::from(text);
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    /// Appends to the URL's query, percent-encoded.
    pub fn query(mut self, pairs: &[(&str, &str)]) -> Result<Self, HttpError> {
        let mut query = self.uri.query().unwrap_or_default().to_owned();
        for (name, value) in pairs {
            if !query.is_empty() && !query.ends_with('&') {
                query.push('&');
            }
            query.push_str(&encode(&[(name, value)]));
        }
        let path = PathAndQuery::try_from(format!("{}?{query}", self.uri.path()))
            .map_err(|cause| HttpError::unusable("the URL's query cannot be sent").caused_by(cause))?;
        let mut parts = self.uri.into_parts();
        parts.path_and_query = Some(path);
        self.uri = Uri::from_parts(parts)
            .map_err(|cause| HttpError::unusable("the URL's query cannot be sent").caused_by(cause))?;
        Ok(self)
    }

    /// Adds a header. Fails on a value that HTTP does not allow.
    pub fn header(mut self, name: &'static str, value: &str) -> Result<Self, HttpError> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| HttpError::unusable(format!("the value of the header {name} cannot be sent")))?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// Adds a header whose value is a secret: it is redacted wherever the answer repeats it.
    pub fn secret_header(self, name: &'static str, value: &str) -> Result<Self, HttpError> {
        let mut request = self.header(name, value)?.secret(value);
        if let Some(value) = request.headers.get_mut(name) {
            value.set_sensitive(true);
        }
        Ok(request)
    }

    /// Sends this form. The body is overwritten when it is dropped.
    pub fn form(mut self, pairs: &[(&str, &str)]) -> Self {
        let encoded = Zeroizing::new(encode(pairs).into_bytes());
        self.body = Bytes::from_owner(encoded);
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self
    }

    /// Marks a value, of the form for example, as a secret: it is redacted wherever the answer repeats it.
    pub fn secret(mut self, value: &str) -> Self {
        self.secrets.push(Zeroizing::new(value.to_owned()));
        self
    }

    /// How long a connection to one address may take to be established. Default: 10 s.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// How long the whole exchange may take. Default: 30 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Uses this TLS configuration in place of the platform's roots, and this name in place of the URL's host.
    pub fn tls(mut self, config: Arc<ClientConfig>, name: Option<ServerName<'static>>) -> Self {
        self.tls = Some((config, name));
        self
    }

    /// The URL without its query.
    pub fn endpoint(&self) -> String {
        format!(
            "{}://{}{}",
            if self.is_https() { "https" } else { "http" },
            self.authority(),
            self.uri.path()
        )
    }

    /// Is its host this machine?
    pub fn is_to_this_machine(&self) -> bool {
        is_loopback(self.host())
    }

    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// The host without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub(super) fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Host and port as the URL writes them.
    pub(super) fn authority(&self) -> String {
        self.uri.authority().map(ToString::to_string).unwrap_or_default()
    }

    pub(super) fn into_message(mut self) -> (hyper::Request<Full<Bytes>>, Vec<Zeroizing<String>>) {
        let mut message = hyper::Request::new(Full::new(self.body));
        *message.method_mut() = self.method.clone();
        if let Some(host) = self.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            self.headers.insert(HOST, host);
        }
        if self.method == Method::POST && hyper::body::Body::size_hint(message.body()).exact() == Some(0) {
            // hyper omits `Content-Length: 0`; servers answer a POST without a length with 411.
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *message.headers_mut() = self.headers;
        *message.uri_mut() = self.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        (message, self.secrets)
    }

    fn new(method: Method, url: &str) -> Result<Self, HttpError> {
        let refuse =
            |why: &str| HttpError::new(HttpErrorKind::Unusable, format!("this is not a usable URL: {why}"));
        if url.len() > MAX_URL {
            return Err(refuse("it is longer than 8 KiB"));
        }
        let uri: Uri = url.parse().map_err(|cause| refuse("it cannot be parsed").caused_by(cause))?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(refuse("it does not start with http:// or https://"));
        }
        match uri.authority() {
            None => return Err(refuse("it names no host")),
            Some(authority) if authority.as_str().contains('@') => {
                return Err(refuse("it carries a user name or password"));
            }
            Some(_) => {}
        }
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pgentra/", env!("CARGO_PKG_VERSION"))));
        Ok(Self {
            uri,
            connect_limit: CONNECT_LIMIT,
            limit: LIMIT,
            tls: None,
            method,
            headers,
            body: Bytes::new(),
            secrets: Vec::new(),
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {}{})", self.method, self.authority(), self.uri.path())
    }
}

/// Allocates the full length at once: a `String` that grows leaves copies of a secret in freed memory.
fn encode(pairs: &[(&str, &str)]) -> String {
    // Each byte becomes three at most; "=" and "&" come to each pair.
    let room = pairs.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    form_urlencoded::Serializer::new(String::with_capacity(room)).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_never_outgrows_its_place() {
        for value in ["plain", "&=%+ ~", "\u{0}\u{7f}äöü", &"\u{1f512}".repeat(1000), ""] {
            let pairs = [("client_secret", value), (value, "b"), ("c", value)];
            let room: usize = pairs.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
            let encoded = encode(&pairs);
            assert!(encoded.len() <= room && encoded.capacity() == room, "{value:?}");
        }
    }
}
