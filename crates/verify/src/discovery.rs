//! An issuer's metadata (OpenID Connect Discovery 1.0), reduced to where its keys are.

use serde_json::Value;

/// The largest document looked at, in bytes. Those of issuers in use are below 10 KiB.
pub const DISCOVERY_LIMIT: usize = 64 * 1024;

/// The metadata of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    jwks_uri: String,
}

/// Why a document is not the metadata of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDiscovery {
    /// Longer than [`DISCOVERY_LIMIT`].
    #[error("the issuer's metadata is larger than {DISCOVERY_LIMIT} bytes")]
    TooLong,
    /// Not a JSON object with the texts `issuer` and `jwks_uri`.
    #[error("the issuer's metadata is not a JSON object with an issuer and a jwks_uri")]
    NotMetadata,
    /// `issuer` is another (OpenID Connect Discovery 1.0 section 4.3: it must be the one that was asked for).
    #[error("the issuer's metadata is that of another issuer")]
    OtherIssuer,
    /// The keys are at an address without TLS, and the metadata is not: an attacker on the path would choose the keys.
    #[error("the issuer's metadata names an address without TLS for the keys")]
    KeysWithoutTls,
}

impl Discovery {
    /// Where the metadata of an issuer is.
    pub fn url(issuer: &str) -> String {
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
    }

    /// Reads the metadata that was found for `issuer`, which is compared byte for byte.
    ///
    /// # Errors
    /// See [`BadDiscovery`].
    pub fn read(document: &[u8], issuer: &str) -> Result<Discovery, BadDiscovery> {
        if document.len() > DISCOVERY_LIMIT {
            return Err(BadDiscovery::TooLong);
        }
        let document: Value = serde_json::from_slice(document).map_err(|_| BadDiscovery::NotMetadata)?;
        let text = |name| document.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(named), Some(jwks_uri)) = (text("issuer"), text("jwks_uri")) else {
            return Err(BadDiscovery::NotMetadata);
        };
        if named != issuer {
            return Err(BadDiscovery::OtherIssuer);
        }
        let has_tls = |url: &str| url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if has_tls(issuer) && !has_tls(jwks_uri) {
            return Err(BadDiscovery::KeysWithoutTls);
        }
        Ok(Discovery { jwks_uri: jwks_uri.to_owned() })
    }

    /// Where the issuer publishes its keys.
    pub fn jwks_uri(&self) -> &str {
        &self.jwks_uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata() {
        let good = r#"{"issuer":"https://i","jwks_uri":"https://k/keys","other":[1]}"#;
        assert_eq!(Discovery::read(good.as_bytes(), "https://i").unwrap().jwks_uri(), "https://k/keys");
        assert_eq!(Discovery::url("https://i/"), "https://i/.well-known/openid-configuration");
        for (document, why) in [
            ("", BadDiscovery::NotMetadata),
            ("<html>", BadDiscovery::NotMetadata),
            ("[]", BadDiscovery::NotMetadata),
            (r#"{"issuer":"https://i"}"#, BadDiscovery::NotMetadata),
            (r#"{"issuer":"https://i","jwks_uri":""}"#, BadDiscovery::NotMetadata),
            (r#"{"issuer":"https://i","jwks_uri":1}"#, BadDiscovery::NotMetadata),
            (r#"{"issuer":"https://i/","jwks_uri":"https://k"}"#, BadDiscovery::OtherIssuer),
            (r#"{"issuer":"https://i","jwks_uri":"http://k"}"#, BadDiscovery::KeysWithoutTls),
            (r#"{"issuer":"https://i","jwks_uri":"é"}"#, BadDiscovery::KeysWithoutTls),
        ] {
            assert_eq!(Discovery::read(document.as_bytes(), "https://i"), Err(why), "{document}");
        }
        let long = format!("{good}{}", " ".repeat(DISCOVERY_LIMIT));
        assert_eq!(Discovery::read(long.as_bytes(), "https://i"), Err(BadDiscovery::TooLong));
        let plain = r#"{"issuer":"http://127.0.0.1:1","jwks_uri":"http://127.0.0.1:1/keys"}"#;
        assert!(Discovery::read(plain.as_bytes(), "http://127.0.0.1:1").is_ok());
    }
}
