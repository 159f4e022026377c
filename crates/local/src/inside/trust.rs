//! The certificates that programs in the namespace trust: those of the machine, and the local ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::refused::failed_at;
use crate::error::Failure;

/// Where systems have the file with the certificates that programs trust: Debian, Ubuntu and Alpine;
/// Fedora and RHEL (two names); SUSE; OpenSSL's own name on Alpine and BSD.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Password of the JVM's trust store. It keeps nothing secret: the store has certificates only.
pub(super) const STORE_PASSWORD: &str = "changeit";

/// The files with trusted certificates, as they shall be in the namespace.
pub(super) struct TrustFiles {
    /// All certificates in PEM.
    pub(super) bundle: String,
    /// The machine's own files, with their new content.
    pub(super) laid_over: Vec<(PathBuf, String)>,
    /// The certificates for a JVM, as PKCS#12.
    pub(super) store: Vec<u8>,
}

impl TrustFiles {
    /// The machine's certificates with these.
    pub(super) fn with(certificates: &[String]) -> Result<Self, Failure> {
        let own = certificates.concat();
        let mut laid_over = Vec::new();
        let mut seen = BTreeSet::new();
        for path in BUNDLES.map(Path::new) {
            // A link to another of these files is the same file.
            let Ok(real) = fs::canonicalize(path) else { continue };
            if seen.insert(real.clone()) {
                let text = fs::read_to_string(&real).map_err(|error| failed_at("read", &real, error))?;
                laid_over.push((real, joined(&text, &own)));
            }
        }
        let bundle = laid_over.first().map_or_else(|| own.clone(), |(_, text)| text.clone());
        let store = store(&bundle)?;
        Ok(Self { bundle, laid_over, store })
    }
}

fn joined(text: &str, more: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{more}")
}

/// The certificates of a PEM text as a trust store. What is no certificate for the writer is left out.
fn store(bundle: &str) -> Result<Vec<u8>, Failure> {
    let mut store = KeyStore::new();
    let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok);
    for (number, certificate) in certificates.enumerate() {
        match Certificate::from_der(&certificate) {
            Ok(certificate) => store.add_entry(&number.to_string(), KeyStoreEntry::Certificate(certificate)),
            Err(error) => tracing::debug!(%error, "a trusted certificate is not in the JVM's store"),
        }
    }
    let written = store.writer(STORE_PASSWORD).write();
    written.map_err(|error| Failure::machine("cannot write the trust store of a JVM", error))
}

#[cfg(test)]
mod tests {
    use pgentra_emulator::certificates::Authority;

    use super::*;

    #[test]
    fn the_local_certificates_join_those_of_the_machine() {
        let authority = Authority::generate().unwrap();
        let files = TrustFiles::with(&[authority.pem().to_owned()]).unwrap();
        assert!(files.bundle.contains(authority.pem()));
        for (path, text) in &files.laid_over {
            let before = fs::read_to_string(path).unwrap();
            assert!(text.starts_with(&before) && text.contains(authority.pem()), "{}", path.display());
        }
        let policy = p12_keystore::Pkcs12ImportPolicy::Strict;
        let read = KeyStore::from_pkcs12(&files.store, STORE_PASSWORD, policy).unwrap();
        let count = files.bundle.matches("-----BEGIN CERTIFICATE-----").count();
        assert_eq!(read.entries_len(), count);
    }

    #[test]
    fn a_text_without_an_end_of_line_gets_one() {
        assert_eq!(joined("a", "b"), "a\nb");
        assert_eq!(joined("a\n", "b"), "a\nb");
        assert_eq!(joined("", "b"), "b");
    }
}
