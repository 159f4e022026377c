//! Reads what a token endpoint answered, tolerantly: the same fields arrive as strings, integers and date texts.

use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::token::Life;
use crate::{
    AccessToken, Resource, SourceName, TokenError, TokenErrorKind, UnverifiedClaims, audience, expiry, shell,
};
use pgentra_system::excerpt;
use pgentra_system::http::Response;

/// The longest token that is passed on: PostgreSQL reads password messages of at most 65,535 bytes.
const MAX_TOKEN: usize = 65_530;

/// A `nbf` further in the future than this means that this machine's clock is behind.
const SKEW: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
struct Granted {
    access_token: Option<Zeroizing<String>>,
    expires_on: Option<Value>,
    expires_in: Option<Value>,
    refresh_in: Option<Value>,
    /// What the token is for, as metadata services state it.
    resource: Option<Value>,
}

/// Reads a token from a successful answer.
pub(crate) fn read_token(
    source: SourceName,
    resource: &Resource,
    response: &Response,
    now: SystemTime,
) -> Result<AccessToken, TokenError> {
    let read = || -> Result<AccessToken, TokenError> {
        let granted: Granted =
            serde_json::from_slice(response.body()).map_err(|_| not_json(source, response))?;
        let stated = granted.expires_on.as_ref().and_then(|value| expiry::parse(value, now));
        let relative = granted.expires_in.as_ref().and_then(expiry::parse_seconds).map(|left| now + left);
        let refresh_in = granted.refresh_in.as_ref().and_then(expiry::parse_seconds);
        match granted.access_token {
            Some(text) => UncheckedToken {
                text,
                resource: granted.resource.as_ref().and_then(Value::as_str),
                expires_on: stated.or(relative),
                refresh_in,
                now,
            }
            .check(source, resource)
            .map(|token| token.with_source_time(response.date()))
            .inspect(|token| {
                // Not for a source on this machine: it has the same clock, or an emulator's clock that was set on purpose.
                if !response.is_from_here() {
                    warn_of_clock(token, now);
                }
            })
            .map_err(|error| tell_clocks(error, response.date(), now)),
            None => Err(TokenError::bad_answer(source, "the answer holds no access token")),
        }
    };
    read().map_err(|error| error.endpoint_is(response.endpoint()))
}

/// A token as a source states it. Every token of every source is checked here.
pub(crate) struct UncheckedToken<'a> {
    pub(crate) text: Zeroizing<String>,
    /// What the source says that the token is for; `None`: it does not say.
    pub(crate) resource: Option<&'a str>,
    /// The end that the source states; `None`: the token's own `exp` claim alone counts.
    pub(crate) expires_on: Option<SystemTime>,
    /// How long after `now` the source asks for a refresh; `None`: the cache decides.
    pub(crate) refresh_in: Option<Duration>,
    /// When the source answered.
    pub(crate) now: SystemTime,
}

impl UncheckedToken<'_> {
    /// # Errors
    /// A text that cannot be a token, a token for another resource, or a token that has ended. Of the stated
    /// end and the `exp` claim, the earlier counts.
    pub(crate) fn check(self, source: SourceName, resource: &Resource) -> Result<AccessToken, TokenError> {
        let Self { text, resource: stated_resource, expires_on: stated, refresh_in, now } = self;
        let shown = text.as_str();
        let bad = |what: &str| TokenError::bad_answer(source, what);
        if shown.is_empty() {
            return Err(bad("the access token in the answer is empty"));
        }
        if shown.len() > MAX_TOKEN {
            return Err(bad("the access token in the answer is longer than a server would read"));
        }
        if !shown.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("the access token in the answer contains characters that no token has"));
        }
        // These claims are not verified. That is safe: an earlier `exp` only makes the cache refresh sooner.
        let claims = UnverifiedClaims::read(shown);
        if let Some(other) = audience::other_than(resource, claims.as_ref(), stated_resource) {
            return Err(for_something_else(source, resource, &other));
        }
        let claimed = |name| claims.as_ref().and_then(|claims| claims.time(name));
        let expires_on = match (stated, claimed("exp")) {
            (Some(stated), Some(claimed)) => stated.min(claimed),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Err(endless(source)),
        };
        if expires_on <= now {
            return Err(TokenError::expired(source, "the token in the answer has already expired")
                .with_hint("Compare this machine's clock with the true time: `timedatectl` on Linux."));
        }
        // Copied into an allocation of the exact length: `shrink_to_fit` could leave a copy in freed memory.
        let secret = SecretString::from(shown);
        Ok(AccessToken::new(secret, Life { now, expires_on, refresh_in }, source, resource))
    }
}

fn endless(source: SourceName) -> TokenError {
    let error = TokenError::bad_answer(source, "the answer does not say when the token ends");
    match source {
        SourceName::Exec => error.with_hint(
            "Say how long a token of the command is valid: --token-lifetime 15m, or token_lifetime in a file. Or let the \
             command print JSON with access_token and expires_on.",
        ),
        _ => error,
    }
}

/// Tells of a token that is not valid yet.
pub(crate) fn warn_of_clock(token: &AccessToken, now: SystemTime) {
    let not_before = UnverifiedClaims::of(token).and_then(|claims| claims.time("nbf"));
    if let Some(ahead) = not_before.and_then(|nbf| nbf.duration_since(now).ok()).filter(|ahead| *ahead > SKEW)
    {
        let source = token.source();
        tracing::warn!(%source, seconds = ahead.as_secs(), "the token is not valid yet: this machine's clock is behind");
    }
}

fn for_something_else(source: SourceName, asked: &Resource, other: &str) -> TokenError {
    let message = format!("the token is for {}, and was asked for {asked}", excerpt(other, &[]));
    let error = TokenError::new(TokenErrorKind::Audience, message).at(source);
    match source {
        SourceName::Exec | SourceName::AzureCli | SourceName::AzureDeveloperCli => error.with_hint(format!(
            "A command finds what to ask for in PGENTRA_RESOURCE; with az: az account get-access-token --resource {}",
            shell::word(asked.as_str())
        )),
        _ => error,
    }
}

/// Where a token has ended on arrival and the two clocks differ, that is why.
fn tell_clocks(error: TokenError, date: Option<SystemTime>, now: SystemTime) -> TokenError {
    let ahead = date.and_then(|date| now.duration_since(date).ok()).filter(|ahead| *ahead > SKEW);
    match ahead.filter(|_| error.kind() == TokenErrorKind::Expired) {
        Some(ahead) => error.with_hint(format!(
            "This machine's clock is {} min ahead of the token source's. Set it right: `timedatectl set-ntp true` on Linux.",
            ahead.as_secs() / 60
        )),
        None => error,
    }
}

/// The error for a successful response that is not JSON. It names the likely cause, such as a proxy's HTML page.
pub(crate) fn not_json(source: SourceName, response: &Response) -> TokenError {
    let body = response.body();
    let kind = response.header("content-type").unwrap_or_default();
    let starts = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if body.is_empty() {
        return TokenError::bad_answer(source, "the answer is empty");
    }
    if kind.contains("html") || starts == Some(&b'<') {
        return TokenError::bad_answer(source, "the answer is a web page, not JSON").with_hint(
            "Something in between answers in its place: a captive portal or a proxy. Look at the route.",
        );
    }
    TokenError::bad_answer(source, "the answer is not the JSON of a token")
}

/// Code and text of a refusal, in the formats of Azure's endpoints.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct RefusalText {
    /// The peer's code, such as `invalid_request` or `AADSTS70021`.
    pub(crate) code: Option<String>,
    /// The peer's words, fit for a message.
    pub(crate) text: String,
}

/// Reads a refusal: `{"error","error_description"}`, `{"statusCode","message"}`, `{"error":{"code","message"}}`, or text.
pub(crate) fn read_refusal(response: &Response) -> RefusalText {
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(response.body()) else {
        return RefusalText { code: None, text: response.body_excerpt() };
    };
    let nested = body.get("error").and_then(Value::as_object).unwrap_or(&body);
    let text_of = |name: &str| nested.get(name).or_else(|| body.get(name)).and_then(Value::as_str);
    let text = text_of("error_description").or_else(|| text_of("message")).or_else(|| text_of("Message"));
    let plain = body.get("error").and_then(Value::as_str);
    let code = plain.or_else(|| text_of("code")).map(|code| response.excerpt(code));
    let text = text.or(plain).map_or_else(|| response.body_excerpt(), |text| response.excerpt(text));
    let aadsts =
        text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| is_aadsts(word)).map(str::to_owned);
    RefusalText { code: aadsts.or(code), text }
}

/// The error for a refusal.
pub(crate) fn refused(source: SourceName, response: &Response) -> TokenError {
    let status = response.status();
    let RefusalText { code, text } = read_refusal(response);
    let mut message = format!("refused with status {status}");
    if let Some(code) = code.as_deref().filter(|code| !text.contains(code)) {
        message.push_str(&format!(", {code}"));
    }
    if !text.is_empty() {
        message.push_str(&format!(": {text}"));
    }
    let error = TokenError::new(TokenErrorKind::Refused { status }, message).at(source);
    let error = error.endpoint_is(response.endpoint());
    match (code, status) {
        (Some(code), _) => error.with_code(code),
        (None, 300..400) => error.with_hint(
            "A redirect is not followed, because secrets would go along. Something in between answers in its place.",
        ),
        _ => error,
    }
}

fn is_aadsts(word: &str) -> bool {
    word.strip_prefix("AADSTS")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn refusals_are_read_in_every_shape() {
        for (body, code, text) in [
            (
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                Some("invalid_request"),
                "Identity not found",
            ),
            (r#"{"statusCode":500,"message":"No identity"}"#, None, "No identity"),
            (
                r#"{"error":{"code":"ManagedIdentityNotFound","message":"None here","correlationId":"c"}}"#,
                Some("ManagedIdentityNotFound"),
                "None here",
            ),
            (r#"{"error":"BadRequest","message":"Not assigned"}"#, Some("BadRequest"), "Not assigned"),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: wrong"}"#,
                Some("AADSTS7000215"),
                "AADSTS7000215: wrong",
            ),
            (r#"{"error":"gone"}"#, Some("gone"), "gone"),
            ("Required metadata header not specified", None, "Required metadata header not specified"),
            ("", None, ""),
            ("[1]", None, "[1]"),
            (r#"{"error":5}"#, None, r#"{"error":5}"#),
        ] {
            let refusal = read_refusal(&Response::fixed(400, body.as_bytes()));
            assert_eq!((refusal.code.as_deref(), refusal.text.as_str()), (code, text), "{body}");
        }
    }

    #[test]
    fn a_token_longer_than_a_server_reads_is_refused() {
        let resource = "https://a.example".parse().unwrap();
        for (length, fits) in [(MAX_TOKEN, true), (MAX_TOKEN + 1, false)] {
            let body = format!(r#"{{"access_token":"{}","expires_in":60}}"#, "x".repeat(length));
            let read = read_token(SourceName::Imds, &resource, &Response::fixed(200, body.as_bytes()), now());
            assert_eq!(read.is_ok(), fits);
        }
    }

    #[test]
    fn an_expiry_twice_or_a_body_that_is_a_bomb_is_an_error() {
        let resource = "https://a.example".parse().unwrap();
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in [
            r#"{"access_token":"a","access_token":"b","expires_in":60}"#.to_owned(),
            format!(r#"{{"access_token":"a","expires_on":{nested}}}"#),
            nested,
        ] {
            assert!(
                read_token(SourceName::Imds, &resource, &Response::fixed(200, body.as_bytes()), now())
                    .is_err()
            );
        }
    }

    proptest! {
        /// Whatever is answered: no panic, no token that has ended, and an error that names the endpoint.
        #[test]
        fn any_answer_is_a_good_token_or_an_error(
            body in prop_oneof![
                any::<Vec<u8>>().prop_map(|bytes| bytes),
                ("[ -~]{0,20}", "[0-9a-zA-Z/: .+-]{0,30}", any::<i64>()).prop_map(|(token, on, within)| {
                    serde_json::json!({ "access_token": token, "expires_on": on, "expires_in": within }).to_string().into_bytes()
                }),
            ],
            status in 100u16..600,
        ) {
            let resource = "https://a.example".parse().unwrap();
            let response = Response::fixed(status, &body);
            read_refusal(&response);
            match read_token(SourceName::Imds, &resource, &response, now()) {
                Ok(token) => prop_assert!(token.expires_on() > now() && !token.expose_secret().is_empty()),
                Err(error) => prop_assert_eq!(error.endpoint(), Some("http://host/path")),
            }
        }
    }
}
