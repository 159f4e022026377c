//! One issuer of federated tokens.

use std::sync::Arc;

use secrecy::SecretString;
use serde::Serialize;

use crate::keys::{KeyError, LazyKey, SigningKey};

/// One issuer: `iss`, where its keys are, and its key.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(super) url: String,
    pub(super) keys_url: String,
    key: LazyKey,
}

#[derive(Serialize)]
struct JwsHeader<'a> {
    typ: &'static str,
    alg: &'static str,
    kid: &'a str,
}

impl Issuer {
    pub(super) fn new(url: String, keys: &str) -> Self {
        Self { keys_url: format!("{url}{keys}"), url, key: LazyKey::default() }
    }

    pub(crate) fn key(&self) -> Result<Arc<SigningKey>, KeyError> {
        self.key.get()
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<SecretString, KeyError> {
        let key = self.key()?;
        Ok(key.sign(&JwsHeader { typ: "JWT", alg: "RS256", kid: key.id() }, claims)?.into())
    }
}
