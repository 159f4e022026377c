//! Signing keys, their publication as a JSON Web Key Set (RFC 7517), and rollover.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256, date_time_ymd};
use rustls_pki_types::PrivatePkcs8KeyDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// How many keys stay published: the signing one and those before it. Entra publishes a handful.
const PUBLISHED: usize = 4;

/// A key could not be made, or did not sign: the crypto library failed.
#[derive(Debug, thiserror::Error)]
#[error("the crypto library failed to {0}")]
pub struct KeyError(pub(crate) &'static str);

/// One RSA-2048 key and its certificate.
pub(crate) struct SigningKey {
    pair: RsaKeyPair,
    id: String,
    certificate: Vec<u8>,
}

/// A key for another run: PKCS#8 and the certificate, in base64.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SavedKey {
    #[serde(with = "pgentra_directory::exposed")]
    pkcs8: SecretString,
    certificate: String,
}

/// A key as a JSON Web Key, with the members that Entra publishes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PublicKey {
    kty: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    x5t: String,
    n: String,
    e: String,
    x5c: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
}

impl SigningKey {
    /// A new key. Its id is the SHA-1 thumbprint of its certificate, as at Entra.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let failed = |_| KeyError("make a signing key");
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
        let certificate = certify(pkcs8.as_ref()).map_err(|_| KeyError("certify a signing key"))?;
        Ok(Self::of(pair, certificate))
    }

    fn of(pair: RsaKeyPair, certificate: Vec<u8>) -> Self {
        let thumbprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate);
        Self { pair, id: URL_SAFE_NO_PAD.encode(thumbprint), certificate }
    }

    fn saved(&self) -> Result<SavedKey, KeyError> {
        let pkcs8: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError("save a signing key"))?;
        let pkcs8 = STANDARD.encode(pkcs8.as_ref()).into();
        Ok(SavedKey { pkcs8, certificate: STANDARD.encode(&self.certificate) })
    }

    fn restore(saved: &SavedKey) -> Result<Self, KeyError> {
        let unreadable = KeyError("read a saved signing key");
        let pkcs8 = STANDARD.decode(saved.pkcs8.expose_secret());
        let pair = pkcs8.ok().and_then(|pkcs8| RsaKeyPair::from_pkcs8(&pkcs8).ok());
        match (pair, STANDARD.decode(&saved.certificate)) {
            (Some(pair), Ok(certificate)) => Ok(Self::of(pair, certificate)),
            _ => Err(unreadable),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Signs a header and claims into a compact JWS (RFC 7515) with RS256.
    pub(crate) fn sign(&self, header: &impl Serialize, claims: &impl Serialize) -> Result<String, KeyError> {
        let part = |bytes: serde_json::Result<Vec<u8>>| {
            bytes.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| KeyError("encode a token"))
        };
        let mut token = part(serde_json::to_vec(header))?;
        token.push('.');
        token.push_str(&part(serde_json::to_vec(claims))?);
        let mut signed = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signed)
            .map_err(|_| KeyError("sign a token"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signed, &mut token);
        Ok(token)
    }

    pub(crate) fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        let key = signature::UnparsedPublicKey::new(
            &signature::RSA_PKCS1_2048_8192_SHA256,
            self.pair.public_key().as_ref(),
        );
        key.verify(message, signed).is_ok()
    }

    /// This key for a key set; `issuer` is the member that only Entra's v2.0 document has.
    pub(crate) fn public(&self, issuer: Option<String>) -> PublicKey {
        let (modulus, exponent) = integers(self.pair.public_key().as_ref()).unwrap_or_default();
        PublicKey {
            kty: "RSA",
            usage: "sig",
            kid: self.id.clone(),
            x5t: self.id.clone(),
            n: URL_SAFE_NO_PAD.encode(modulus),
            e: URL_SAFE_NO_PAD.encode(exponent),
            x5c: vec![STANDARD.encode(&self.certificate)],
            issuer,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys of one issuer, newest first: the first signs, all are published.
#[derive(Debug)]
pub(crate) struct KeyRing(RwLock<Vec<Arc<SigningKey>>>);

impl KeyRing {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        Ok(Self(RwLock::new(vec![Arc::new(SigningKey::generate()?)])))
    }

    pub(crate) fn saved(&self) -> Result<Vec<SavedKey>, KeyError> {
        self.published().iter().map(|key| key.saved()).collect()
    }

    /// The keys of an earlier run; without one, a new key.
    pub(crate) fn restore(saved: &[SavedKey]) -> Result<Self, KeyError> {
        if saved.is_empty() {
            return Self::generate();
        }
        let keys = saved.iter().take(PUBLISHED).map(|key| SigningKey::restore(key).map(Arc::new));
        Ok(Self(RwLock::new(keys.collect::<Result<_, _>>()?)))
    }

    pub(crate) fn signing(&self) -> Result<Arc<SigningKey>, KeyError> {
        self.published().into_iter().next().ok_or(KeyError("find a signing key"))
    }

    pub(crate) fn published(&self) -> Vec<Arc<SigningKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new key signs from now on; the older ones stay published.
    pub(crate) fn roll_over(&self) -> Result<(), KeyError> {
        let key = Arc::new(SigningKey::generate()?);
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(0, key);
        keys.truncate(PUBLISHED);
        Ok(())
    }

    /// Only the signing key stays published.
    pub(crate) fn forget_old(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).truncate(1);
    }
}

/// One key, made when it is first needed: most local clouds never use most issuers, and a key costs a tenth of a second.
#[derive(Debug, Default)]
pub(crate) struct LazyKey(Mutex<Option<Arc<SigningKey>>>);

impl LazyKey {
    pub(crate) fn get(&self) -> Result<Arc<SigningKey>, KeyError> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*slot {
            return Ok(key.clone());
        }
        let key = Arc::new(SigningKey::generate()?);
        *slot = Some(key.clone());
        Ok(key)
    }
}

fn certify(pkcs8: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_RSA_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "accounts.accesscontrol.windows.net");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params.self_signed(&pair)?.der().to_vec())
}

/// Modulus and public exponent out of an RSAPublicKey (RFC 8017 appendix A.1.1): a SEQUENCE of two INTEGERs.
fn integers(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (sequence, _) = element(der, 0x30)?;
    let (modulus, rest) = element(sequence, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    let unsigned = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    Some((unsigned(modulus), unsigned(exponent)))
}

/// The content of the DER element with `tag` at the start of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(4))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

/// Making RSA keys takes a tenth of a second and more: not on a thread that serves connections.
pub(crate) async fn on_a_blocking_thread<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(make).await.unwrap_or(Err(KeyError("make a signing key")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_with_the_published_key() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&serde_json::json!({"alg": "RS256"}), &serde_json::json!({"sub": "x"})).unwrap();
        let (message, signed) = token.rsplit_once('.').unwrap();
        let signed = URL_SAFE_NO_PAD.decode(signed).unwrap();
        let public = key.public(None);
        let components = aws_lc_rs::signature::RsaPublicKeyComponents {
            n: URL_SAFE_NO_PAD.decode(public.n).unwrap(),
            e: URL_SAFE_NO_PAD.decode(public.e).unwrap(),
        };
        components.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signed).unwrap();
        assert!(key.verifies(message.as_bytes(), &signed));
        assert!(!key.verifies(b"another", &signed));
        assert!(!SigningKey::generate().unwrap().verifies(message.as_bytes(), &signed));
    }

    #[test]
    fn rollover_keeps_old_keys_until_told_otherwise() {
        let ring = KeyRing::generate().unwrap();
        let first = ring.signing().unwrap();
        for _ in 0..PUBLISHED {
            ring.roll_over().unwrap();
        }
        assert_eq!(ring.published().len(), PUBLISHED);
        assert_ne!(ring.signing().unwrap().id(), first.id());
        ring.forget_old();
        assert_eq!(ring.published().len(), 1);
    }

    #[test]
    fn a_lazy_key_is_made_once() {
        let lazy = LazyKey::default();
        assert_eq!(lazy.get().unwrap().id(), lazy.get().unwrap().id());
    }

    #[test]
    fn broken_der_is_refused() {
        for der in [&[][..], &[0x30], &[0x30, 0x05, 0x02], &[0x30, 0x84, 0xff], &[0x02, 0x01, 0x01]] {
            assert_eq!(integers(der), None, "{der:?}");
        }
    }
}
