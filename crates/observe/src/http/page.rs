//! Pages for people: one look, one content security policy.

use std::io;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use rand::TryRngCore;
use rand::rngs::OsRng;

use serde::Serialize;

use super::reply::{HttpReply, only_get, plain, respond};

/// What the pages have in common.
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Placeholder in a page for the nonce that its script and style share with the content security
/// policy.
const NONCE: &str = "{{nonce}}";

/// A page as the answer. In `template`, `{{style}}` and `{{script}}` stand for what all pages have,
/// `{{nonce}}` for the attribute of its style and script elements, and the texts in `texts` replace
/// their placeholders; they are escaped.
///
/// The policy of the page allows no other script or style, and requests to this listener alone.
pub fn page(template: &str, texts: &[(&str, &str)]) -> HttpReply {
    let policy = |nonce: &str| {
        format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    };
    let made = nonce().and_then(|nonce| {
        let policy = HeaderValue::try_from(policy(&nonce)).map_err(io::Error::other)?;
        let shared = template.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
        Ok((policy, filled(&shared.replace(NONCE, &nonce), texts)))
    });
    match made {
        Ok((policy, text)) => {
            let mut answer = respond(StatusCode::OK, "text/html; charset=utf-8", text);
            answer.headers_mut().insert("content-security-policy", policy);
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The answer to `GET /`, the page, and to `GET /status.json`, the document that the page shows.
/// `None`: another path.
pub fn status_page<T: Serialize>(
    method: &Method,
    path: &str,
    template: &str,
    status: impl FnOnce() -> T,
) -> Option<HttpReply> {
    if !matches!(path, "/" | "/status.json") {
        return None;
    }
    Some(only_get(method).unwrap_or_else(|| match path {
        "/" => page(template, &[]),
        _ => match serde_json::to_string(&status()) {
            Ok(text) => respond(StatusCode::OK, "application/json", text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
    }))
}

/// Puts each text in the first place of its placeholder. A placeholder in a text stays a text.
fn filled(page: &str, texts: &[(&str, &str)]) -> String {
    let found = |text: &str| {
        let places = texts.iter().filter_map(|(name, with)| Some((text.find(name)?, *name, *with)));
        places.min_by_key(|(at, ..)| *at)
    };
    let (mut rest, mut filled) = (page, String::with_capacity(page.len()));
    while let Some((at, name, text)) = found(rest) {
        filled.push_str(&rest[..at]);
        filled.push_str(&escaped(text));
        rest = &rest[at + name.len()..];
    }
    filled.push_str(rest);
    filled
}

/// A text that means the same in an element and in an attribute's value in double quotes.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            char => shown.push(char),
        }
    }
    shown
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_neither_markup_nor_a_placeholder() {
        let page = "<i title=\"{{a}}\">{{b}}</i>{{a}}";
        let texts = [("{{a}}", "\"><script>"), ("{{b}}", "{{a}} & {{nonce}}")];
        assert_eq!(
            filled(page, &texts),
            "<i title=\"&quot;&gt;&lt;script&gt;\">{{a}} &amp; {{nonce}}</i>&quot;&gt;&lt;script&gt;"
        );
    }
}
