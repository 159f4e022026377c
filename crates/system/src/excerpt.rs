//! Text from a peer, shortened and redacted for a message.

use zeroize::Zeroizing;

/// Characters of a peer's text that a message shows.
const MAX_EXCERPT: usize = 300;

/// A run of characters of a token's alphabet at least this long is taken for one. A GUID has 36.
const TOKEN_LENGTH: usize = 64;

/// The beginning of a text: one line, at most 300 characters, redacted where it repeats one of the secrets or looks like a
/// token.
pub fn excerpt(text: &str, secrets: &[Zeroizing<String>]) -> String {
    let mut text = Zeroizing::new(text.to_owned());
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
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

    fn shown(text: &str, secrets: &[&str]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|secret| Zeroizing::new((*secret).to_owned())).collect();
        excerpt(text, &secrets)
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
            assert_eq!(shown(&body, &secrets), expected);
        }
    }

    #[test]
    fn an_excerpt_is_short() {
        let text = shown(&"word ".repeat(100_000), &[]);
        assert_eq!(text.chars().count(), MAX_EXCERPT + 1);
    }
}
