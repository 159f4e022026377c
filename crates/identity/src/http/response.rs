use std::fmt;

use http::header::HeaderMap;
use zeroize::Zeroizing;

/// How much of a peer's text goes into a message for people.
const MAX_EXCERPT: usize = 300;

/// A run of characters of a token's alphabet at least this long is taken for one. A GUID has 36.
const TOKEN_LENGTH: usize = 64;

/// A whole HTTP answer. The body is overwritten when it is dropped; `Debug` shows only the status and its length.
pub struct Response {
    status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    secrets: Vec<Zeroizing<String>>,
}

impl Response {
    /// The HTTP status.
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

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The beginning of a text that a peer sent, fit for a message: one line, at most 300 characters, and redacted where
    /// it repeats a secret of the request or looks like a token.
    pub fn excerpt(&self, text: &str) -> String {
        let mut text = Zeroizing::new(text.to_owned());
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            *text = text.replace(secret.as_str(), "[redacted]");
        }
        let mut shown = String::new();
        for (index, word) in text.split_whitespace().enumerate() {
            if index > 0 {
                shown.push(' ');
            }
            shown.push_str(&redact_tokens(word));
            if shown.len() > MAX_EXCERPT * 4 {
                break;
            }
        }
        shown.retain(|c| !c.is_control());
        if shown.chars().count() > MAX_EXCERPT {
            shown = shown.chars().take(MAX_EXCERPT).chain(std::iter::once('…')).collect();
        }
        shown
    }

    /// The beginning of the body, fit for a message as [`Response::excerpt`] says.
    pub fn body_excerpt(&self) -> String {
        let head = &self.body[..self.body.len().min(64 * 1024)];
        self.excerpt(&Zeroizing::new(String::from_utf8_lossy(head).into_owned()))
    }

    pub(super) fn new(
        head: http::response::Parts,
        body: Zeroizing<Vec<u8>>,
        secrets: Vec<Zeroizing<String>>,
    ) -> Self {
        Self { status: head.status.as_u16(), headers: head.headers, body, secrets }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

/// Replaces every long run of base64url characters and dots.
fn redact_tokens(word: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=');
    let mut shown = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let run = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        let is_jwt = rest[..run].starts_with("eyJ") && run >= 12;
        // A path or an address is no token: tokens have no slash and dot mixture like "https://host/path".
        let is_long = run >= TOKEN_LENGTH && !rest[..run].contains('/');
        shown.push_str(if is_jwt || is_long { "[redacted]" } else { &rest[..run] });
        let other = rest[run..].find(is_token).map_or(rest.len(), |index| run + index);
        shown.push_str(&rest[run..other]);
        rest = &rest[other..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(body: &str, secrets: &[&str]) -> Response {
        let head = http::Response::new(()).into_parts().0;
        let secrets = secrets.iter().map(|secret| Zeroizing::new((*secret).to_owned())).collect();
        Response::new(head, Zeroizing::new(body.as_bytes().to_vec()), secrets)
    }

    #[test]
    fn a_peer_cannot_put_a_secret_into_a_message() {
        let jwt = format!("eyJhbGciOiJub25lIn0.{}.sig", "a".repeat(100));
        for (body, secrets, expected) in [
            (format!("bad token {jwt}!"), vec![], "bad token [redacted]!".to_owned()),
            (format!("\"assertion\":\"{jwt}\""), vec![], "\"assertion\":\"[redacted]\"".to_owned()),
            ("header was hunter2".to_owned(), vec!["hunter2"], "header was [redacted]".to_owned()),
            (format!("opaque {}", "x1".repeat(40)), vec![], "opaque [redacted]".to_owned()),
            (
                "id 853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a".to_owned(),
                vec![],
                "id 853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a".to_owned(),
            ),
            ("two\r\nlines\u{1b}[31m".to_owned(), vec![], "two lines[31m".to_owned()),
        ] {
            assert_eq!(response(&body, &secrets).body_excerpt(), expected);
        }
    }

    #[test]
    fn an_excerpt_is_short() {
        let shown = response(&"word ".repeat(100_000), &[]).body_excerpt();
        assert_eq!(shown.chars().count(), MAX_EXCERPT + 1);
    }
}
