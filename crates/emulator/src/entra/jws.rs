//! A signed assertion in its parts (RFC 7515, RFC 7519), and what makes Entra refuse one of any kind.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::refusal::{EntraError, missing, time};
use crate::cloud::Cloud;
use crate::exchange::Parameters;

/// Entra lets a clock be this far off.
const LEEWAY: i64 = 300;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The assertion in a form, if there is one.
pub(super) fn presented(form: &Parameters) -> Result<Option<&str>, EntraError> {
    let Some(token) = form.get("client_assertion") else { return Ok(None) };
    match form.get("client_assertion_type") {
        None => Err(missing("client_assertion_type")),
        Some(JWT_BEARER) => Ok(Some(token)),
        Some(other) => {
            let sentence = format!("AADSTS90023: Unsupported 'client_assertion_type' value '{other}'.");
            Err(EntraError::new(90023, "invalid_request", sentence))
        }
    }
}

/// A decoded assertion whose signature is not verified yet.
pub(super) struct Parsed<'a> {
    pub(super) header: JwsHeader,
    pub(super) claims: Claims,
    pub(super) message: &'a str,
    pub(super) signature: Vec<u8>,
}

#[derive(Debug, Deserialize)]
pub(super) struct JwsHeader {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: String,
    #[serde(default)]
    pub(super) x5t: Option<String>,
    #[serde(default, rename = "x5t#S256")]
    pub(super) x5t_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub(super) iss: String,
    #[serde(default)]
    pub(super) sub: String,
    #[serde(default)]
    pub(super) aud: Audiences,
    exp: NumericDate,
    #[serde(default)]
    nbf: Option<NumericDate>,
    #[serde(default)]
    iat: Option<NumericDate>,
}

/// Seconds since 1970, which may have a fraction (RFC 7519 section 2): MSAL for Python sends one. MSAL for .NET writes the
/// number as text, against that section, and Entra takes it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "NumberOrText")]
struct NumericDate(f64);

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl TryFrom<NumberOrText> for NumericDate {
    type Error = &'static str;

    fn try_from(written: NumberOrText) -> Result<Self, Self::Error> {
        match written {
            NumberOrText::Number(seconds) => Ok(Self(seconds)),
            NumberOrText::Text(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {
                text.parse().map(Self).map_err(|_| "a time that is no number")
            }
            NumberOrText::Text(_) => Err("a time that is no number"),
        }
    }
}

impl NumericDate {
    /// Whole seconds; a time beyond all reason stays beyond it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the conversion saturates, and the fraction is not wanted"
    )]
    fn seconds(self) -> i64 {
        self.0 as i64
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    pub(super) fn list(&self) -> &[String] {
        match self {
            Self::One(audience) => std::slice::from_ref(audience),
            Self::Several(audiences) => audiences,
        }
    }
}

/// Refuses an assertion that is not valid at any of these times, yet or any more.
pub(super) fn within(cloud: &Cloud, claims: &Claims, times: &[i64]) -> Result<(), EntraError> {
    let now = cloud.clock.unix();
    let from = claims.nbf.or(claims.iat).map_or(i64::MIN, NumericDate::seconds);
    let until = claims.exp.seconds();
    let valid = from.saturating_sub(LEEWAY)..=until.saturating_add(LEEWAY);
    if times.iter().any(|time| valid.contains(time)) {
        return Ok(());
    }
    let sentence = format!(
        "AADSTS700024: Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, \
         expiry time of assertion {}. Review the documentation at \
         https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        time(now),
        time(from.max(0)),
        time(until)
    );
    Err(EntraError::new(700_024, "invalid_client", sentence))
}

pub(super) fn malformed() -> EntraError {
    EntraError::new(50027, "invalid_request", "AADSTS50027: JWT token is invalid or malformed.")
}

pub(super) fn forged() -> EntraError {
    let sentence = "AADSTS700027: Client assertion failed signature validation.";
    EntraError::new(700_027, "invalid_client", sentence)
}

/// The async credential of the SDK for Python pads its assertion, against RFC 7515 section 2, and Entra takes it.
pub(super) fn parse(token: &str) -> Option<Parsed<'_>> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok();
    Some(Parsed {
        header: serde_json::from_slice(&decode(header)?).ok()?,
        claims: serde_json::from_slice(&decode(claims)?).ok()?,
        message,
        signature: decode(signature)?,
    })
}
