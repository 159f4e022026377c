//! A JSON Web Key Set (RFC 7517 section 5), reduced to the keys that may sign a tenant's access tokens.

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use uuid::Uuid;

/// The largest document looked at, in bytes. Entra's are below 30 KiB, certificates included.
pub const JWKS_LIMIT: usize = 256 * 1024;

/// The most keys in a document. Entra publishes about ten.
pub const KEYS_LIMIT: usize = 64;

/// RSA from 2,048 to 8,192 bits, as the signature algorithm demands; the modulus in bytes.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// An exponent is 65,537 in practice; the library's own bound is 33 bits.
const EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 1..=5;

/// The usable keys of one document, each parsed once.
pub(crate) struct KeySet(Vec<PublishedKey>);

struct PublishedKey {
    id: String,
    public: ParsedPublicKey,
}

/// Why a document is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKeySet {
    #[error("the key document is larger than {JWKS_LIMIT} bytes")]
    TooLong,
    #[error("the key document is not a JSON object with a list of keys")]
    NotAKeySet,
    #[error("the key document has more than {KEYS_LIMIT} keys")]
    TooMany,
    #[error("the key document has no RSA key that may sign tokens of this tenant")]
    NoneUsable,
}

impl KeySet {
    /// Keys of another kind, for another use, or damaged are skipped: a document may hold what this crate does not
    /// know. A document without a single usable key is an error, so that it never replaces a good one.
    pub(crate) fn parse(document: &[u8], tenant: Uuid) -> Result<KeySet, BadKeySet> {
        if document.len() > JWKS_LIMIT {
            return Err(BadKeySet::TooLong);
        }
        let Ok(Value::Object(document)) = serde_json::from_slice(document) else {
            return Err(BadKeySet::NotAKeySet);
        };
        let Some(Value::Array(keys)) = document.get("keys") else {
            return Err(BadKeySet::NotAKeySet);
        };
        if keys.len() > KEYS_LIMIT {
            return Err(BadKeySet::TooMany);
        }
        let keys: Vec<PublishedKey> =
            keys.iter().filter_map(|key| PublishedKey::parse(key.as_object()?, tenant)).collect();
        // Keeps the last good keys when the issuer serves an empty or foreign document for a while.
        if keys.is_empty() {
            return Err(BadKeySet::NoneUsable);
        }
        Ok(KeySet(keys))
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Whether a key of this id made the signature. Should a document name two keys alike, either will do.
    pub(crate) fn verify(&self, id: &str, digest: &Digest, signature: &[u8]) -> bool {
        self.0
            .iter()
            .filter(|key| key.id == id)
            .any(|key| key.public.verify_digest_sig(digest, signature).is_ok())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl PublishedKey {
    fn parse(key: &Map<String, Value>, tenant: Uuid) -> Option<PublishedKey> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let absent_or = |name: &str, wanted: &str| key.get(name).is_none_or(|value| value == wanted);
        if text("kty") != Some("RSA") || !absent_or("use", "sig") || !absent_or("alg", "RS256") {
            return None;
        }
        if text("issuer").is_some_and(|issuer| names_another_tenant(issuer, tenant)) {
            return None;
        }
        // A key without an id is never used: a token's `kid` selects the key, and a token without one is refused.
        let id = text("kid").filter(|id| !id.is_empty())?.to_owned();
        let n = URL_SAFE_NO_PAD.decode(text("n")?).ok()?;
        let e = URL_SAFE_NO_PAD.decode(text("e")?).ok()?;
        if !MODULUS_BYTES.contains(&n.len()) || !EXPONENT_BYTES.contains(&e.len()) {
            return None;
        }
        let public = PublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
        Some(PublishedKey { id, public })
    }
}

/// Entra adds to each key the issuer it is for; the one with `{tenantid}` in it is for all tenants, others are for one,
/// such as that of personal accounts (Microsoft: "Access tokens", "Validate the signing key issuer").
fn names_another_tenant(issuer: &str, tenant: Uuid) -> bool {
    issuer.split('/').filter(|segment| segment.len() == 36).any(|segment| match Uuid::try_parse(segment) {
        Ok(named) => named != tenant,
        Err(_) => false,
    })
}
