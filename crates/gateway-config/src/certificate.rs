//! The certificate for clients, read again when its files change.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use pgentra_settings::{FileWatch, LOOK};
use pgentra_system::Files;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::{MissedTickBehavior, interval};

/// What is wrong with the files, and of which key.
pub(crate) struct CertificateFault {
    pub(crate) key: &'static str,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

/// The certificate that clients are shown.
pub(crate) struct ListenerCertificate(ArcSwap<CertifiedKey>);

impl ListenerCertificate {
    /// Reads the certificate chain and its private key.
    pub(crate) fn read(
        files: &Files,
        (cert, key): (&PathBuf, &PathBuf),
    ) -> Result<CertifiedKey, CertificateFault> {
        let fault = |key, message, hint| CertificateFault { key, message, hint };
        const CERT: &str = "listen_tls_cert";
        const KEY: &str = "listen_tls_key";
        let unreadable =
            |path: &PathBuf, error: &dyn fmt::Display| format!("{} cannot be read: {error}", path.display());
        let pem = files.read(cert, FileWatch::LENGTH).map_err(|error| {
            fault(CERT, unreadable(cert, &error), "give a file that the gateway can read")
        })?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            let hint = "give a file with -----BEGIN CERTIFICATE----- in it";
            fault(CERT, format!("{} has no certificate", cert.display()), hint)
        })?;
        let hint = "chmod 0640 FILE, or 0600; of a Kubernetes secret: defaultMode: 0440 with an fsGroup";
        let pem = files
            .read_private(key, FileWatch::LENGTH)
            .map_err(|error| fault(KEY, unreadable(key, &error), hint))?;
        let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            let hint = "give a key in PEM without a passphrase";
            fault(KEY, format!("{} has no private key: {error}", key.display()), hint)
        })?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, private, &provider).map_err(|error| {
            let hint = "give the certificate chain and the private key that belongs to its first certificate";
            fault(CERT, format!("the certificate and the private key cannot be used: {error}"), hint)
        })
    }

    pub(crate) fn new(certified: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(certified)))
    }

    /// TLS 1.2 and 1.3 with this certificate.
    ///
    /// # Errors
    /// If the crypto library has no protocol version.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        // No PostgreSQL client resumes sessions.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// Applies changes of the files for as long as the certificate is in use. Files that cannot be used
/// change nothing: the log says what is wrong, and the next change is read again.
pub(crate) async fn keep(
    certificate: Weak<ListenerCertificate>,
    (files, mut watch): (Files, FileWatch),
    (cert, key): (PathBuf, PathBuf),
) {
    let mut times = interval(LOOK);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let Some(certificate) = certificate.upgrade() else { return };
        if !watch.has_changed() {
            continue;
        }
        match ListenerCertificate::read(&files, (&cert, &key)) {
            Ok(certified) => {
                certificate.0.store(Arc::new(certified));
                tracing::info!(file = %cert.display(), "the certificate was read again");
            }
            Err(CertificateFault { key, message, hint }) => {
                tracing::warn!(key, hint, "{message}; the certificate before stays");
            }
        }
    }
}

impl ResolvesServerCert for ListenerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for ListenerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerCertificate").finish_non_exhaustive()
    }
}
