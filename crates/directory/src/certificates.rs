//! The certificates with which an application proves itself.

use std::sync::{PoisonError, RwLock};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// The certificates that are registered for the application.
#[derive(Debug, Default)]
pub struct Certificates(RwLock<Vec<RegisteredCertificate>>);

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisteredCertificate {
    sha1: Vec<u8>,
    sha256: Vec<u8>,
    public_key: Vec<u8>,
}

impl RegisteredCertificate {
    /// Its public key: a SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

impl Certificates {
    /// Every certificate.
    pub fn all(&self) -> Vec<RegisteredCertificate> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of an earlier run.
    pub fn of(registered: Vec<RegisteredCertificate>) -> Self {
        Self(RwLock::new(registered))
    }

    /// Registers a certificate.
    ///
    /// # Errors
    /// If it is no X.509 certificate.
    pub fn register(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let thumbprint = |algorithm| digest::digest(algorithm, certificate).as_ref().to_vec();
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(RegisteredCertificate {
            sha1: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: thumbprint(&digest::SHA256),
            public_key: parsed.subject_public_key_info().to_vec(),
        });
        Ok(())
    }

    /// The certificate with either thumbprint; the newer form wins where both are given.
    pub fn find(&self, sha1: Option<&str>, sha256: Option<&str>) -> Option<RegisteredCertificate> {
        let (sha1, sha256) = (sha1.map(bytes_of), sha256.map(bytes_of));
        let registered = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |one: &&RegisteredCertificate| match (&sha256, &sha1) {
            (Some(sha256), _) => sha256.as_ref() == Some(&one.sha256),
            (None, Some(sha1)) => sha1.as_ref() == Some(&one.sha1),
            (None, None) => false,
        };
        registered.iter().find(fits).cloned()
    }
}

/// The bytes of a thumbprint. MSAL for Go and for Java write it in the standard alphabet of base64, MSAL for Python pads
/// it, both against RFC 7515 section 2; Entra takes either alphabet, with or without padding.
fn bytes_of(thumbprint: &str) -> Option<Vec<u8>> {
    let text = thumbprint.trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}
