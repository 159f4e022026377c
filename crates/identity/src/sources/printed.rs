//! What a program that gives tokens prints.

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{SourceName, TokenError};
use pgentra_system::secret::SecretBuffer;

/// JSON as azure-cli, azd or an OAuth endpoint gives it, or the token alone.
#[derive(Deserialize)]
pub(super) struct CommandOutput {
    #[serde(alias = "accessToken", alias = "access_token")]
    pub(super) token: Option<Zeroizing<String>>,
    /// Seconds since 1970.
    pub(super) expires_on: Option<Value>,
    /// A date text: RFC 3339 from azd, local time without an offset from azure-cli, which is of no use.
    #[serde(rename = "expiresOn")]
    pub(super) expires_on_text: Option<String>,
    pub(super) expires_in: Option<Value>,
    /// What the token is for, in the answer of an OAuth endpoint.
    pub(super) resource: Option<Value>,
}

impl CommandOutput {
    pub(super) fn read(source: SourceName, output: &[u8]) -> Result<Self, TokenError> {
        let plain = without_escapes(output);
        let text = std::str::from_utf8(&plain)
            .map_err(|_| TokenError::bad_answer(source, "the program printed something that is not text"))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if let Some((what, hint)) = mistaken(text) {
            return Err(TokenError::bad_answer(source, what).with_hint(hint));
        }
        if !text.starts_with('{') {
            let token = Some(Zeroizing::new(text.to_owned()));
            return Ok(Self {
                token,
                expires_on: None,
                expires_on_text: None,
                expires_in: None,
                resource: None,
            });
        }
        serde_json::from_str(text)
            .map_err(|_| TokenError::bad_answer(source, "the program printed JSON that cannot be read"))
    }
}

/// The output without escape sequences of a terminal: az ends its JSON with a reset of the colour where it takes its output
/// for a terminal (Azure/azure-cli#9903), and a program that wraps it may colour what it prints.
fn without_escapes(output: &[u8]) -> SecretBuffer {
    let mut plain = SecretBuffer::with_capacity(output.len());
    let mut rest = output;
    while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
        let (before, escape) = rest.split_at(at);
        plain.extend(before);
        rest = escape.get(length(escape)..).unwrap_or_default();
    }
    plain.extend(rest);
    plain
}

/// The length of the sequence that these bytes begin with (ECMA-48, 5.4 and 5.6).
fn length(escape: &[u8]) -> usize {
    let ends_at =
        |is_end: fn(&u8) -> bool| escape.iter().skip(2).position(is_end).map_or(escape.len(), |at| at + 3);
    match escape.get(1) {
        // A control sequence ends with its first byte from @ to ~.
        Some(b'[') => ends_at(|byte| (0x40..=0x7e).contains(byte)),
        // A control string ends with BEL, or with ESC \, whose backslash is then the sequence of its own.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let end = escape.iter().skip(2).position(|byte| matches!(byte, 0x07 | 0x1b));
            end.map_or(escape.len(), |at| at + if escape.get(at + 2) == Some(&0x07) { 3 } else { 2 })
        }
        _ => 2,
    }
}

/// What is wrong with an output of one of the usual mistakes, and what to do.
fn mistaken(text: &str) -> Option<(&'static str, &'static str)> {
    const TSV: &str = "With az, add `-o tsv` to `--query accessToken`, or leave --query out.";
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | '+' | '/' | '=');
    let is_quoted = |text: &str| {
        ['"', '\''].into_iter().any(|quote| {
            let inner = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
            inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(word))
        })
    };
    let within =
        |open, close| text.strip_prefix(open).and_then(|text| text.strip_suffix(close)).map(str::trim);
    if is_quoted(text) {
        return Some(("the token that the program printed is in quotes", TSV));
    }
    if within('{', '}').or_else(|| within('[', ']')).is_some_and(is_quoted) {
        return Some(("the token that the program printed is in quotes and brackets", TSV));
    }
    if matches!(text, "null" | "None" | "[]" | "{}") {
        return Some(("the program printed an empty result in place of a token", TSV));
    }
    let scheme = text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
    scheme.then_some((
        "the program printed `Bearer` before the token",
        "The command must print the token alone, or JSON as `az account get-access-token` does.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_left_out() {
        for (output, text) in [
            ("{}\n\u{1b}[0m", "{}\n"),
            ("\u{1b}[1;32mabc\u{1b}[0m", "abc"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]8;;https://x\u{1b}\\b", "ab"),
            ("a\u{1b}(Bb", "aBb"),
            ("a\u{1b}=b", "ab"),
            ("abc\u{1b}", "abc"),
            ("abc\u{1b}[", "abc"),
            ("abc\u{1b}]never ends", "abc"),
            ("\u{1b}[38;5;1m\u{1b}[Kx", "x"),
            ("plain", "plain"),
        ] {
            assert_eq!(String::from_utf8_lossy(&without_escapes(output.as_bytes())), text, "{output:?}");
        }
    }
}
