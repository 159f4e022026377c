//! The certificates that programs in the namespace trust: those of the machine, and the local ones.

use std::path::PathBuf;

use crate::error::Failure;
use crate::trust_store::{joined, machine_bundles, trust_store};

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
        let machine = machine_bundles()?.into_iter();
        let laid_over: Vec<_> = machine.map(|(path, text)| (path, joined(&text, &own))).collect();
        let bundle = laid_over.first().map_or_else(|| own.clone(), |(_, text)| text.clone());
        let store = trust_store(&bundle)?;
        Ok(Self { bundle, laid_over, store })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pgentra_emulator::certificates::Authority;

    use super::*;

    #[test]
    fn the_local_certificates_join_those_of_the_machine() {
        let authority = Authority::generate().unwrap();
        let files = TrustFiles::with(&[authority.pem().to_owned()]).unwrap();
        assert!(files.bundle.contains(authority.pem()));
        for (path, text) in &files.laid_over {
            let before = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
            assert!(text.starts_with(&before) && text.contains(authority.pem()), "{}", path.display());
        }
    }
}
