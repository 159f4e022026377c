//! Whom to trust.

use std::sync::Arc;

use pgentra_identity::Files;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::ConnectError;

/// A bundle of every public authority has about a quarter of this.
const LENGTH_LIMIT: usize = 1024 * 1024;

/// The certificate authorities that a server's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots(pub(crate) Kind);

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Those of the operating system.
    Platform,
    /// These and no others, with the file they were read from.
    Own { store: Arc<RootCertStore>, path: Option<String> },
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Platform, Self::Platform) => true,
            (Self::Own { store, path }, Self::Own { store: others, path: other }) => {
                store.roots == others.roots && path == other
            }
            (Self::Platform | Self::Own { .. }, _) => false,
        }
    }
}

impl Eq for Kind {}

impl Roots {
    /// The authorities that the operating system trusts.
    pub fn platform() -> Roots {
        Roots(Kind::Platform)
    }

    /// The certificates of a PEM text and no others.
    ///
    /// # Errors
    /// A text without a certificate, or with one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Roots, ConnectError> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unreadable().because(error))?;
            store.add(certificate).map_err(|error| unreadable().because(error))?;
        }
        if store.is_empty() {
            return Err(ConnectError::config("there is no certificate among the trusted authorities")
                .hinting("sslrootcert names a file with -----BEGIN CERTIFICATE----- in it"));
        }
        Ok(Roots(Kind::Own { store: Arc::new(store), path: None }))
    }

    /// What the value of `sslrootcert` means: `system`, or a file.
    pub(crate) fn from_setting(value: &str, files: &Files) -> Result<Roots, ConnectError> {
        if value == "system" {
            return Ok(Roots::platform());
        }
        let pem = files.read(value, LENGTH_LIMIT).map_err(|error| {
            ConnectError::config(format!("the file of trusted authorities {value} cannot be read"))
                .because(error)
        })?;
        let mut roots = Roots::from_pem(&pem)?;
        if let Kind::Own { path, .. } = &mut roots.0 {
            *path = Some(value.to_owned());
        }
        Ok(roots)
    }
}

fn unreadable() -> ConnectError {
    ConnectError::config("a certificate among the trusted authorities cannot be read")
}
