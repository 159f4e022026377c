//! Client assertions: a signed statement of somebody else about who the client is (RFC 7523 section 2.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::refusal::{Refusal, time};
use crate::cloud::Cloud;
use crate::federation::FederatedCredential;

/// Entra lets a clock be this far off.
const LEEWAY: i64 = 300;

const HOW: &str = "Please check your federated identity credential Subject, Audience and Issuer against the presented \
                   assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Audiences,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    iat: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    fn list(&self) -> &[String] {
        match self {
            Self::One(audience) => std::slice::from_ref(audience),
            Self::Several(audiences) => audiences,
        }
    }
}

/// An assertion taken apart, and not yet believed.
struct Parsed<'a> {
    header: Header,
    claims: Claims,
    message: &'a str,
    signature: Vec<u8>,
}

/// Checks a federated token against the credential that is registered with the client, in the order in which Entra
/// complains.
pub(super) fn federated(cloud: &Cloud, token: &str, registered: &FederatedCredential) -> Result<(), Refusal> {
    let parsed = parse(token).ok_or_else(malformed)?;
    let claims = &parsed.claims;
    if claims.iss != registered.issuer {
        return Err(no_record(700_211, "issuer", &claims.iss));
    }
    if claims.sub != registered.subject {
        return Err(no_record(700_213, "subject", &claims.sub));
    }
    let audiences = claims.aud.list();
    if !audiences.contains(&registered.audience) {
        return Err(no_record(700_212, "audience", &audiences.join(", ")));
    }
    within(cloud, claims)?;
    let issuer = cloud.federation.issuer(&claims.iss).ok_or_else(unreachable_issuer)?;
    let key = issuer.key().map_err(|_| unreachable_issuer())?;
    let genuine = parsed.header.alg == "RS256"
        && parsed.header.kid == key.id()
        && key.verifies(parsed.message.as_bytes(), &parsed.signature);
    if genuine { Ok(()) } else { Err(forged()) }
}

fn within(cloud: &Cloud, claims: &Claims) -> Result<(), Refusal> {
    let now = cloud.clock.unix();
    let from = claims.nbf.or(claims.iat).unwrap_or(now);
    if (from.saturating_sub(LEEWAY)..=claims.exp.saturating_add(LEEWAY)).contains(&now) {
        return Ok(());
    }
    let sentence = format!(
        "AADSTS700024: Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, \
         expiry time of assertion {}. Review the documentation at \
         https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        time(now),
        time(from),
        time(claims.exp)
    );
    Err(Refusal::new(700_024, "invalid_client", sentence))
}

fn parse(token: &str) -> Option<Parsed<'_>> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    Some(Parsed {
        header: serde_json::from_slice(&decode(header)?).ok()?,
        claims: serde_json::from_slice(&decode(claims)?).ok()?,
        message,
        signature: decode(signature)?,
    })
}

fn malformed() -> Refusal {
    Refusal::new(50027, "invalid_request", "AADSTS50027: JWT token is invalid or malformed.")
}

fn forged() -> Refusal {
    let sentence = "AADSTS700027: Client assertion failed signature validation.";
    Refusal::new(700_027, "invalid_client", sentence)
}

fn unreachable_issuer() -> Refusal {
    Refusal::new(90061, "invalid_request", "AADSTS90061: Request to External OIDC endpoint failed.")
}

fn no_record(number: u32, what: &str, presented: &str) -> Refusal {
    let sentence = format!(
        "AADSTS{number}: No matching federated identity record found for presented assertion {what} '{presented}'. {HOW}"
    );
    Refusal::new(number, "invalid_client", sentence)
}
