//! Whom to trust.

use std::sync::Arc;

use pgentra_system::Files;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::as_libpq::Special;
use crate::error::ConnectError;

/// A bundle of every public authority has about a quarter of this.
const LENGTH_LIMIT: usize = 1024 * 1024;

/// The certificate authorities that a server's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots(pub(crate) RootSource);

#[derive(Debug, Clone)]
pub(crate) enum RootSource {
    /// Those of the operating system.
    Platform,
    /// These and no others, with the file they were read from.
    Own { store: Arc<RootCertStore>, special: Special, path: Option<String> },
}

impl PartialEq for RootSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Platform, Self::Platform) => true,
            (
                Self::Own { store, special, path },
                Self::Own { store: other_store, special: other_special, path: other_path },
            ) => store.roots == other_store.roots && special == other_special && path == other_path,
            (Self::Platform | Self::Own { .. }, _) => false,
        }
    }
}

impl Eq for RootSource {}

impl Roots {
    /// The authorities that the operating system trusts.
    pub fn platform() -> Roots {
        Roots(RootSource::Platform)
    }

    /// The certificates of a PEM text and no others. As with libpq, a chain ends in one that is self-signed; the others
    /// complete chains. A server may show a self-signed certificate that is among them.
    ///
    /// # Errors
    /// A text without a self-signed certificate, or with one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Roots, ConnectError> {
        let mut store = RootCertStore::empty();
        let mut special = Special::default();
        let mut any = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unreadable().because(error))?;
            any = true;
            if special.add(&certificate) {
                store.add(certificate).map_err(|error| unreadable().because(error))?;
            }
        }
        if any && store.is_empty() {
            let message =
                "there is no root among the trusted authorities: another authority signed each of them";
            return Err(ConnectError::config(message)
                .hinting("have sslrootcert name a file with the certificate of the root authority, which is self-signed; libpq takes no other for one"));
        }
        if store.is_empty() {
            return Err(ConnectError::config("there is no certificate among the trusted authorities")
                .hinting("sslrootcert names a file with -----BEGIN CERTIFICATE----- in it"));
        }
        Ok(Roots(RootSource::Own { store: Arc::new(store), special, path: None }))
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
        if let RootSource::Own { path, .. } = &mut roots.0 {
            *path = Some(value.to_owned());
        }
        Ok(roots)
    }
}

fn unreadable() -> ConnectError {
    ConnectError::config("a certificate among the trusted authorities cannot be read")
}
