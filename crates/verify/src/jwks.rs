//! A JSON Web Key Set (RFC 7517 section 5), reduced to the keys that may sign an issuer's access tokens.

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::ParsedPublicKey;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::algorithm::Algorithm;

/// The largest document looked at, in bytes. Entra's are below 30 KiB, certificates included.
pub const JWKS_LIMIT: usize = 256 * 1024;

/// The most keys in a document. Entra publishes about ten.
pub const KEYS_LIMIT: usize = 64;

/// The most keys of one id and algorithm: what one signature can cost. An issuer has no reason for a second one; more
/// than these are ignored.
const KEYS_PER_ID: usize = 2;

/// Which keys of a document are usable.
#[derive(Debug, Clone)]
pub(crate) struct KeyRules {
    /// For Entra: keys that name another tenant are ignored.
    pub(crate) tenant: Option<Uuid>,
    pub(crate) algorithms: Vec<Algorithm>,
}

/// The usable keys of one document, each parsed once.
pub(crate) struct KeySet(Vec<PublishedKey>);

struct PublishedKey {
    id: String,
    algorithm: Algorithm,
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
    #[error("the key document has no key that may sign tokens of this issuer")]
    NoneUsable,
}

impl KeySet {
    /// Keys of another kind, for another use, weak, doubled or damaged are skipped: a document may hold what this crate
    /// does not know. A document without a single usable key is an error, so that it never replaces a good one.
    pub(crate) fn parse(document: &[u8], rules: &KeyRules) -> Result<KeySet, BadKeySet> {
        if document.len() > JWKS_LIMIT {
            return Err(BadKeySet::TooLong);
        }
        let Ok(Value::Object(document)) = serde_json::from_slice(document) else {
            return Err(BadKeySet::NotAKeySet);
        };
        let Some(Value::Array(published)) = document.get("keys") else {
            return Err(BadKeySet::NotAKeySet);
        };
        if published.len() > KEYS_LIMIT {
            return Err(BadKeySet::TooMany);
        }
        let mut keys = KeySet(Vec::new());
        for key in published.iter().filter_map(Value::as_object) {
            for algorithm in &rules.algorithms {
                keys.add(PublishedKey::parse(key, *algorithm, rules.tenant));
            }
        }
        // Keeps the last good keys when the issuer serves an empty or foreign document for a while.
        if keys.0.is_empty() {
            return Err(BadKeySet::NoneUsable);
        }
        Ok(keys)
    }

    fn add(&mut self, key: Option<PublishedKey>) {
        let Some(key) = key else { return };
        let is_double = |known: &PublishedKey| known.public.as_ref() == key.public.as_ref();
        let is_wanted = !self.of(&key.id, key.algorithm).any(is_double)
            && self.of(&key.id, key.algorithm).count() < KEYS_PER_ID;
        if is_wanted {
            self.0.push(key);
        }
    }

    fn of(&self, id: &str, algorithm: Algorithm) -> impl Iterator<Item = &PublishedKey> {
        self.0.iter().filter(move |key| key.id == id && key.algorithm == algorithm)
    }

    /// Whether there is a key of this id, whatever its algorithm.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Whether a key of this id is for this algorithm. The key decides, so that no header can choose another use of it.
    pub(crate) fn can(&self, id: &str, algorithm: Algorithm) -> bool {
        self.of(id, algorithm).next().is_some()
    }

    /// Whether a key of this id made the signature. Should a document name two keys alike, either will do.
    pub(crate) fn verify(&self, id: &str, algorithm: Algorithm, digest: &Digest, signature: &[u8]) -> bool {
        self.of(id, algorithm).any(|key| key.public.verify_digest_sig(digest, signature).is_ok())
    }

    /// Keys, of which one may be for two algorithms.
    pub(crate) fn len(&self) -> usize {
        let is_first =
            |at: usize| !self.0[..at].iter().any(|key| key.public.as_ref() == self.0[at].public.as_ref());
        (0..self.0.len()).filter(|at| is_first(*at)).count()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl PublishedKey {
    fn parse(key: &Map<String, Value>, algorithm: Algorithm, tenant: Option<Uuid>) -> Option<PublishedKey> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let absent_or = |name: &str, wanted: &str| key.get(name).is_none_or(|value| value == wanted);
        // RFC 7517 sections 4.2 to 4.4: what the key is for, where the issuer says it.
        let verifies = key.get("key_ops").is_none_or(|operations| {
            operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
        });
        if !verifies || !absent_or("use", "sig") || !absent_or("alg", algorithm.name()) {
            return None;
        }
        let named = text("issuer").zip(tenant);
        if named.is_some_and(|(issuer, tenant)| names_another_tenant(issuer, tenant)) {
            return None;
        }
        // A key without an id is never used: a token's `kid` selects the key, and a token without one is refused.
        let id = text("kid").filter(|id| !id.is_empty())?.to_owned();
        Some(PublishedKey { id, algorithm, public: algorithm.public_key(key)? })
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
