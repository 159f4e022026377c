use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::entra::{ClientCredential, EntraRequest};
use super::{AssertionSignature, SourceSettings};
use crate::{AccessToken, NoToken, SourceName, TokenError, TokenRequest, TokenSource};

/// A key and a chain of certificates are a few KiB.
const MAX_FILE: usize = 1024 * 1024;

/// How long an assertion is good for, as MSAL has it.
const ASSERTION_LIFE: Duration = Duration::from_secs(10 * 60);

const NAME: SourceName = SourceName::ClientCertificate;

/// An application with a certificate (Microsoft: certificate-credentials): a file with an RSA key and its certificate, PEM
/// or, with the feature `pkcs12`, PKCS#12. It is read anew for each exchange, so that a renewed one is taken up.
#[derive(Debug)]
pub(super) struct ClientCertificateSource {
    setup: SourceSettings,
}

/// The key, and the certificates with the key's own first.
struct KeyAndChain {
    key: RsaKeyPair,
    chain: Vec<CertificateDer<'static>>,
}

impl ClientCertificateSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let client_id = self.setup.client_id(NAME, "AZURE_CLIENT_ID")?;
        let tenant = self.setup.tenant(NAME, "AZURE_TENANT_ID")?;
        let identity = self.read()?;
        let assertion = self.assertion(&identity, &client_id, &self.setup.authority.token_url(&tenant))?;
        let proof = ClientCredential::Assertion(&assertion);
        let exchange =
            EntraRequest { source: NAME, tenant: &tenant, client_id: &client_id, proof, through: None };
        Ok(exchange.send(&self.setup, request).await?)
    }

    fn read(&self) -> Result<KeyAndChain, TokenError> {
        let path = self.setup.need(NAME, "AZURE_CLIENT_CERTIFICATE_PATH")?;
        let content =
            self.setup.system.files().read(&path, MAX_FILE).map(Zeroizing::new).map_err(|cause| {
                TokenError::config(NAME, format!("the certificate file {path} cannot be read"))
                    .caused_by(cause)
            })?;
        if content.windows(11).any(|part| part == b"-----BEGIN ") {
            return from_pem(&content, &path);
        }
        let password = self.setup.system.env().get("AZURE_CLIENT_CERTIFICATE_PASSWORD").unwrap_or_default();
        from_pkcs12(&content, &Zeroizing::new(password), &path)
    }

    fn assertion(
        &self,
        identity: &KeyAndChain,
        client_id: &str,
        audience: &str,
    ) -> Result<Zeroizing<String>, TokenError> {
        let failed = |what: &str| TokenError::config(NAME, format!("the assertion cannot be signed: {what}"));
        let certificate = identity.chain.first().ok_or_else(|| failed("there is no certificate"))?;
        let print = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, certificate));
        let (name, encoding): (_, &'static dyn RsaEncoding) = match self.setup.signature {
            AssertionSignature::Ps256 => ("PS256", &signature::RSA_PSS_SHA256),
            AssertionSignature::Rs256 => ("RS256", &signature::RSA_PKCS1_SHA256),
        };
        let mut header = json!({
            "alg": name,
            "typ": "JWT",
            "x5t": print(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            "x5t#S256": print(&digest::SHA256),
        });
        // Entra then trusts the subject and issuer of the chain, not only this very certificate.
        let sends_chain = self.setup.system.env().get("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN");
        if sends_chain.is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true")) {
            header["x5c"] = identity.chain.iter().map(|one| STANDARD.encode(one)).collect();
        }
        let now = self.setup.system.clock().now();
        let since =
            |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": Uuid::new_v4(),
            "nbf": since(now),
            "iat": since(now),
            "exp": since(now + ASSERTION_LIFE),
        });
        let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let assertion = Zeroizing::new(format!("{}.{}", encode(&header), encode(&claims)));
        let mut signed = Zeroizing::new(vec![0; identity.key.public_modulus_len()]);
        identity
            .key
            .sign(encoding, &SystemRandom::new(), assertion.as_bytes(), &mut signed)
            .map_err(|_| failed("the key cannot be used"))?;
        let signature = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*signed));
        Ok(Zeroizing::new([assertion.as_str(), ".", signature.as_str()].concat()))
    }
}

impl TokenSource for ClientCertificateSource {
    fn name(&self) -> SourceName {
        NAME
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

fn from_pem(pem: &[u8], path: &str) -> Result<KeyAndChain, TokenError> {
    let broken =
        |what: &str| TokenError::config(NAME, format!("the certificate file {path} holds no usable {what}"));
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|cause| {
        broken("private key")
            .caused_by(cause)
            .with_hint("It must hold a key that is not encrypted, and its certificate.")
    })?;
    let key = match &key {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        _ => return Err(broken("RSA key")),
    };
    let key = key.map_err(|_| broken("RSA key of 2048 bits or more"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|cause| broken("certificate").caused_by(cause))?;
    if chain.is_empty() {
        return Err(broken("certificate"));
    }
    Ok(KeyAndChain { key, chain })
}

#[cfg(feature = "pkcs12")]
fn from_pkcs12(content: &[u8], password: &str, path: &str) -> Result<KeyAndChain, TokenError> {
    use p12_keystore::{KeyStore, Pkcs12ImportPolicy};

    let broken = |what: &str| TokenError::config(NAME, format!("the certificate file {path} {what}"));
    let store = KeyStore::from_pkcs12(content, password, Pkcs12ImportPolicy::Strict).map_err(|cause| {
        broken("is neither PEM nor PKCS#12, or its password is another one")
            .caused_by(cause)
            .with_hint("The password is taken from AZURE_CLIENT_CERTIFICATE_PASSWORD.")
    })?;
    let Some((_, identity)) = store.private_key_chain() else { return Err(broken("holds no private key")) };
    let key = RsaKeyPair::from_pkcs8(identity.key().as_der())
        .map_err(|_| broken("holds no usable RSA key of 2048 bits or more"))?;
    let chain = identity.certs().iter().map(|one| CertificateDer::from(one.as_der().to_vec())).collect();
    Ok(KeyAndChain { key, chain })
}

#[cfg(not(feature = "pkcs12"))]
fn from_pkcs12(_content: &[u8], _password: &str, path: &str) -> Result<KeyAndChain, TokenError> {
    Err(TokenError::config(NAME, format!("the certificate file {path} is not PEM"))
        .with_hint("Turn PKCS#12 into PEM: openssl pkcs12 -in FILE.pfx -nodes -out FILE.pem"))
}
