//! The authority that signs the gateway's client certificates.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The name in the authority's certificate.
const NAME: &str = "pgentra gateway authority";
/// How long the authority's certificate is valid: ten years, because the server's administrator
/// installs it by hand.
const VALID: Duration = Duration::from_secs(3650 * 86_400);
/// The start of every certificate is so long ago, for servers whose clock is late.
const SLACK: Duration = Duration::from_secs(300);

/// Signs certificates with which the gateway signs in at the server. `Debug` does not show the key.
pub struct SigningAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// The text is no authority, or a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct AuthorityError {
    what: &'static str,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SigningAuthority {
    /// A new authority with an ECDSA P-256 key.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn generate(now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = root(now).self_signed(&key).map_err(failed)?.pem();
        Ok(Self { issuer: Issuer::new(root(now), key), certificate })
    }

    /// An authority that [`SigningAuthority::to_pem`] wrote.
    ///
    /// # Errors
    /// If the text has no certificate or no key, or if the key is not the certificate's.
    pub fn from_pem(text: &[u8]) -> Result<Self, AuthorityError> {
        let no = |what| move |error| AuthorityError { what, cause: Some(Box::new(error)) };
        let certificate = CertificateDer::from_pem_slice(text)
            .map_err(no("the file has no certificate of an authority"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(no("the file has no private key"))?;
        let key = KeyPair::try_from(&key).map_err(failed)?;
        let public = key.subject_public_key_info();
        if !certificate.windows(public.len()).any(|part| part == public) {
            return Err(AuthorityError { what: "the key is not that of the certificate", cause: None });
        }
        let mut pem = String::new();
        push_pem(&mut pem, "CERTIFICATE", &certificate);
        // The name and the key are all of the issuer that a certificate repeats.
        Ok(Self { issuer: Issuer::new(root(SystemTime::UNIX_EPOCH), key), certificate: pem })
    }

    /// The certificate and then the private key in PEM. A program that has it signs in at the
    /// server as every role that `pg_hba.conf` lets in by such a certificate.
    pub fn to_pem(&self) -> SecretString {
        let mut text = self.certificate.clone();
        push_pem(&mut text, "PRIVATE KEY", &Zeroizing::new(self.issuer.key().serialize_der()));
        text.into()
    }

    /// The certificate in PEM, for the server's `ssl_ca_file`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// A new key for certificates of roles.
    pub(crate) fn key() -> Result<KeyPair, AuthorityError> {
        KeyPair::generate().map_err(failed)
    }

    /// A certificate of a role for this key, valid from now on for `lifetime`.
    pub(crate) fn sign(
        &self,
        role: &str,
        key: &KeyPair,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(role);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, now, lifetime);
        let signed = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(signed.der().clone())
    }
}

impl AuthorityError {
    pub(crate) fn unusable(error: rustls::Error) -> Self {
        Self { what: "a certificate that was made cannot be used", cause: Some(Box::new(error)) }
    }
}

impl fmt::Debug for SigningAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningAuthority").finish_non_exhaustive()
    }
}

fn root(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit(&mut params, now, VALID);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Sets the first and the last moment.
fn limit(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(SLACK);
    params.not_after = epoch + since.saturating_add(lifetime);
}

fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    use base64::Engine as _;
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

fn failed(error: rcgen::Error) -> AuthorityError {
    AuthorityError { what: "a certificate cannot be made", cause: Some(Box::new(error)) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn an_authority_is_read_as_it_was_written() {
        let authority = SigningAuthority::generate(NOW).unwrap();
        let text = authority.to_pem();
        let again = SigningAuthority::from_pem(text.expose_secret().as_bytes()).unwrap();
        assert_eq!(again.certificate_pem(), authority.certificate_pem());
        assert_eq!(again.to_pem().expose_secret(), text.expose_secret());
        assert!(!format!("{again:?}").contains("BEGIN"));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let (one, other) =
            (SigningAuthority::generate(NOW).unwrap(), SigningAuthority::generate(NOW).unwrap());
        let key = other.to_pem();
        let key = &key.expose_secret()[key.expose_secret().find("-----BEGIN PRIVATE").unwrap()..];
        for (text, says) in [
            (String::new(), "no certificate"),
            (one.certificate_pem().to_owned(), "no private key"),
            (format!("{}{key}", one.certificate_pem()), "not that of the certificate"),
        ] {
            let error = SigningAuthority::from_pem(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
