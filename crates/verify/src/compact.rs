//! The compact form of a signed token (RFC 7515 section 7.1), taken apart without trusting it.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::algorithm::Algorithm;
use crate::object::{ClaimValue, JsonObject};
use crate::rejection::{Malformed, Rejection};

/// The longest token looked at, in bytes: what fits into PostgreSQL's password message (`PG_MAX_AUTH_TOKEN_LENGTH` in
/// `libpq/auth.h` is 65,535, of which the length word and the closing NUL take five).
pub const TOKEN_LIMIT: usize = 65_530;

/// Entra's key ids have 27 or 43 characters; longer ones than this are not looked up.
const KEY_ID_LIMIT: usize = 256;

/// The three parts, still encoded.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    token: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// Two digests for the price of one and a bit: the signature is over the first, the memo is keyed by the second.
pub(crate) struct Digests {
    pub(crate) signing_input: Digest,
    pub(crate) token: [u8; 32],
}

impl<'a> Compact<'a> {
    pub(crate) fn split(token: &'a str) -> Result<Compact<'a>, Rejection> {
        if token.len() > TOKEN_LIMIT {
            return Err(Rejection::NotAToken(Malformed::TooLong));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Rejection::NotAToken(Malformed::Parts));
        };
        // `alg: none` has an empty signature (RFC 7519 section 6); it is refused before the header is read.
        if signature.is_empty() {
            return Err(Rejection::NotAToken(Malformed::Unsigned));
        }
        Ok(Compact { token, header, payload, signature })
    }

    pub(crate) fn digests(&self) -> Digests {
        let signed = self.header.len() + 1 + self.payload.len();
        let (signing_input, rest) = self.token.as_bytes().split_at(signed);
        let mut context = Context::new(&SHA256);
        context.update(signing_input);
        // The state after the signing input is reused, so the second digest costs the hash of the signature only.
        let mut whole = context.clone();
        whole.update(rest);
        let mut token = [0; 32];
        token.copy_from_slice(whole.finish().as_ref());
        Digests { signing_input: context.finish(), token }
    }

    /// Checks the header and yields the algorithm and the id of the key. `alg` is compared with the names that the policy
    /// allows; which key may be used with it, the key decides.
    pub(crate) fn key_id(&self, allowed: &[Algorithm]) -> Result<(Algorithm, String), Rejection> {
        let json = decode(self.header)?;
        let header = JsonObject::parse(&json).ok_or(Rejection::NotAToken(Malformed::Header))?;
        // RFC 7515 section 4.1.11: an extension that is marked critical must be understood, and none is known here.
        if header.get("crit").is_some() {
            return Err(Rejection::NotAToken(Malformed::CriticalExtension));
        }
        let algorithm = match header.get("alg") {
            Some(ClaimValue::Text(alg)) => {
                allowed.iter().copied().find(|known| known.name() == alg).ok_or(Rejection::Algorithm)?
            }
            _ => return Err(Rejection::NotAToken(Malformed::Header)),
        };
        match header.get("typ") {
            None => {}
            // RFC 7515 section 4.1.9 (case-insensitive media type) and RFC 9068 section 2.1.
            Some(ClaimValue::Text(typ)) if is_token_type(typ) => {}
            Some(_) => return Err(Rejection::NotAToken(Malformed::Header)),
        }
        match header.get("kid") {
            Some(ClaimValue::Text(kid)) if kid.is_empty() => Err(Rejection::NotAToken(Malformed::NoKeyId)),
            Some(ClaimValue::Text(kid)) if kid.len() > KEY_ID_LIMIT => Err(Rejection::UnknownKey),
            Some(ClaimValue::Text(kid)) => Ok((algorithm, kid.clone().into_owned())),
            Some(_) => Err(Rejection::NotAToken(Malformed::Header)),
            None => Err(Rejection::NotAToken(Malformed::NoKeyId)),
        }
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, Rejection> {
        decode(self.signature)
    }

    pub(crate) fn payload(&self) -> Result<Vec<u8>, Rejection> {
        decode(self.payload)
    }
}

fn is_token_type(typ: &str) -> bool {
    ["JWT", "at+jwt", "application/at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known))
}

/// This engine refuses padding, foreign characters and stray bits in the last one, so that a token has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejection::NotAToken(Malformed::Base64))
}
