use std::fmt;
use std::time::SystemTime;

use http::header::HeaderMap;
use zeroize::Zeroizing;

use crate::excerpt::excerpt;

/// A whole HTTP answer. The body is overwritten when it is dropped; `Debug` shows only the status and its length.
pub struct Response {
    status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    secrets: Vec<Zeroizing<String>>,
    endpoint: String,
}

impl Response {
    /// The HTTP status code, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Is the status 200 to 299?
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header's value, if it is there once or more and is visible ASCII; the first one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The time on the server's clock when it answered, to the second: its `Date`, if it sent a valid one.
    pub fn date(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header("date")?).ok()
    }

    /// The URL that was asked, without its query.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether a server on this machine answered, at a loopback address or as `localhost`.
    pub fn is_from_here(&self) -> bool {
        let endpoint = self.endpoint.parse::<http::Uri>().ok();
        endpoint.as_ref().and_then(http::Uri::host).is_some_and(super::host::is_loopback)
    }

    /// The body, whatever the status is.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The beginning of a text that a peer sent, fit for a message: one line, at most 300 characters, and redacted where
    /// it repeats a secret of the request or looks like a token.
    pub fn excerpt(&self, text: &str) -> String {
        excerpt(text, &self.secrets)
    }

    /// The beginning of the body, fit for a message as [`Response::excerpt`] says.
    pub fn body_excerpt(&self) -> String {
        let head = &self.body[..self.body.len().min(64 * 1024)];
        self.excerpt(&Zeroizing::new(String::from_utf8_lossy(head).into_owned()))
    }

    /// A response of this status and body, with no header: for tests of code that reads responses.
    pub fn fixed(status: u16, body: &[u8]) -> Self {
        let head = http::Response::builder().status(status).body(()).map(http::Response::into_parts);
        let Ok((head, ())) = head else { return Self::fixed(500, body) };
        Self::new(head, Zeroizing::new(body.to_vec()), "http://host/path".to_owned(), Vec::new())
    }

    pub(super) fn new(
        head: http::response::Parts,
        body: Zeroizing<Vec<u8>>,
        endpoint: String,
        secrets: Vec<Zeroizing<String>>,
    ) -> Self {
        Self { status: head.status.as_u16(), headers: head.headers, body, secrets, endpoint }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}
