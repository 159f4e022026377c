use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use super::{HttpError, HttpErrorKind};
use crate::{Env, Files};

/// The largest file of root certificates that is read: the bundles of operating systems are about 250 KiB.
const MAX_ROOTS: usize = 4 * 1024 * 1024;

/// TLS against the platform's roots and those the user added, configured when first needed: loading the platform's roots
/// costs more than a whole plain request.
pub(super) struct Platform {
    env: Env,
    files: Files,
    extra: Vec<CertificateDer<'static>>,
    config: OnceLock<Result<Arc<ClientConfig>, HttpError>>,
}

impl Platform {
    pub(super) fn new(env: Env, files: Files) -> Self {
        Self { env, files, extra: Vec::new(), config: OnceLock::new() }
    }

    pub(super) fn with_roots(&self, roots: Vec<CertificateDer<'static>>) -> Self {
        let extra = self.extra.iter().cloned().chain(roots).collect();
        Self { env: self.env.clone(), files: self.files.clone(), extra, config: OnceLock::new() }
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, HttpError> {
        self.config.get_or_init(|| self.build()).clone()
    }

    #[cfg(test)]
    pub(super) fn is_built(&self) -> bool {
        self.config.get().is_some()
    }

    fn build(&self) -> Result<Arc<ClientConfig>, HttpError> {
        let mut extra = self.extra.clone();
        if let Some(path) = self.env.get("SSL_CERT_FILE") {
            let pem = self.files.read(&path, MAX_ROOTS).map_err(|cause| {
                HttpError::unusable(format!("cannot read the roots that SSL_CERT_FILE names, {path}"))
                    .caused_by(cause)
            })?;
            extra.extend(certificates(&pem)?);
        }
        let failed = |cause| {
            HttpError::new(HttpErrorKind::Tls, "the platform's root certificates cannot be used")
                .caused_by(cause)
        };
        let provider = provider();
        let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(failed)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous() // rustls' name for "a verifier of one's own": this one is the platform's
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Platform({} extra roots)", self.extra.len())
    }
}

/// The one crypto provider, always passed explicitly: with two compiled in, an implicit default panics.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS that trusts these authorities (PEM) and no others.
pub fn authorities(pem: &[u8]) -> Result<Arc<ClientConfig>, HttpError> {
    let failed =
        |cause| HttpError::new(HttpErrorKind::Tls, "these root certificates cannot be used").caused_by(cause);
    let mut roots = RootCertStore::empty();
    for root in certificates(pem)? {
        roots.add(root).map_err(failed)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The certificates of a PEM text, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(HttpError::unusable("there is no certificate in the PEM text")),
        Err(cause) => Err(HttpError::unusable("the PEM text cannot be read").caused_by(cause)),
    }
}
