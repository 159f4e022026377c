//! The certificates with which an application proves itself.

use std::sync::{PoisonError, RwLock};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use pgentra_certificates::CertificateError;

/// The certificates that are registered for the application.
#[derive(Debug, Default)]
pub(crate) struct Certificates(RwLock<Vec<Registered>>);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Registered {
    sha1: Vec<u8>,
    sha256: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
}

impl Certificates {
    pub(crate) fn all(&self) -> Vec<Registered> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn of(registered: Vec<Registered>) -> Self {
        Self(RwLock::new(registered))
    }

    pub(crate) fn register(&self, certificate: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let parsed = ParsedCertificate::try_from(certificate).map_err(CertificateError::new)?;
        let thumbprint = |algorithm| digest::digest(algorithm, certificate).as_ref().to_vec();
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Registered {
            sha1: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: thumbprint(&digest::SHA256),
            public_key: parsed.subject_public_key_info().to_vec(),
        });
        Ok(())
    }

    /// The certificate with either thumbprint; the newer form wins where both are given.
    pub(crate) fn find(&self, sha1: Option<&str>, sha256: Option<&str>) -> Option<Registered> {
        let (sha1, sha256) = (sha1.map(bytes_of), sha256.map(bytes_of));
        let registered = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |one: &&Registered| match (&sha256, &sha1) {
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
