//! TLS towards clients, and their certificates.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use pgentra_wire::fields::Fields;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_cert::der::oid::ObjectIdentifier;

use super::ClientAuthError;
use super::certificate::{CertificateRule, signature_algorithm};
use crate::refusal;
use pgentra_session::client::acceptor;

/// TLS 1.2 and 1.3 for clients: after an SSLRequest, or at once (`sslnegotiation=direct`).
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    clients: Option<CertificateRule>,
    end_point: Option<Arc<[u8]>>,
}

impl Tls {
    /// Presents the certificates of the PEM text `chain`, the server's own first, with the first
    /// private key in `key`. With `clients`, PEM certificates of authorities and a rule, each
    /// client must have a certificate of one of these authorities.
    ///
    /// # Errors
    /// A text without a certificate or key, a key that is encrypted, or a key that does not match
    /// the certificate.
    pub fn from_pem(
        chain: &[u8],
        key: &[u8],
        clients: Option<(&[u8], CertificateRule)>,
    ) -> Result<Self, ClientAuthError> {
        let chain = certificates(chain, "the certificate chain")?;
        let end_point = chain.first().and_then(end_point);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            ClientAuthError::new("the private key cannot be read", "give a key in PEM without a passphrase")
                .because(error)
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let unusable = |error| {
            let hint = "give the certificate chain and the private key that belongs to its first certificate";
            ClientAuthError::new("the certificate and the private key cannot be used", hint).because(error)
        };
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let (config, rule) = match clients {
            None => (config.with_no_client_auth(), None),
            Some((authorities, rule)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(authorities, "the clients' certificate authority")? {
                    roots.add(certificate).map_err(unusable)?;
                }
                // The handshake accepts a client without a certificate, so that the client gets a
                // PostgreSQL error. A certificate of another authority fails the handshake.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| {
                        let hint = "give a file with -----BEGIN CERTIFICATE----- in it";
                        ClientAuthError::new("the clients' certificate authority cannot be used", hint)
                            .because(error)
                    })?;
                (config.with_client_cert_verifier(verifier), Some(rule))
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(unusable)?;
        // Session resumption is off, because a resumed session skips the certificate check. No
        // PostgreSQL client uses it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { acceptor: acceptor(&config), clients: rule, end_point })
    }

    /// Whether clients must present a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.clients.is_some()
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The channel binding data of this certificate; `None` for a signature algorithm that RFC 5929
    /// defines no digest for.
    pub(crate) fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Whether a client with this certificate may use this role. The handshake has checked the
    /// signatures.
    pub(crate) fn check_certificate(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        role: &[u8],
    ) -> Result<(), Fields> {
        match (&self.clients, certificate) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(refusal::no_certificate()),
            (Some(rule), Some(certificate)) => rule
                .check(certificate, role)
                .map_err(|name| refusal::another_certificate(name.as_deref(), role)),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients).finish_non_exhaustive()
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ClientAuthError> {
    let unreadable = || {
        let hint = "give a file with -----BEGIN CERTIFICATE----- in it";
        ClientAuthError::new(format!("{what} cannot be read"), hint)
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(unreadable()),
        Ok(all) => Ok(all),
        Err(error) => Err(unreadable().because(error)),
    }
}

/// The channel binding `tls-server-end-point` (RFC 5929 section 4.1): the digest of the certificate
/// with the algorithm of its signature, SHA-256 instead of MD5 and SHA-1. A signature without a
/// separate digest (Ed25519), or with the digest in its parameters (RSA-PSS), has no binding that
/// clients agree on.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Arc<[u8]>> {
    const fn oid(text: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(text)
    }
    const SHA_256: [ObjectIdentifier; 5] = [
        oid("1.2.840.113549.1.1.4"),
        oid("1.2.840.113549.1.1.5"),
        oid("1.2.840.113549.1.1.11"),
        oid("1.2.840.10045.4.1"),
        oid("1.2.840.10045.4.3.2"),
    ];
    const SHA_384: [ObjectIdentifier; 2] = [oid("1.2.840.113549.1.1.12"), oid("1.2.840.10045.4.3.3")];
    const SHA_512: [ObjectIdentifier; 2] = [oid("1.2.840.113549.1.1.13"), oid("1.2.840.10045.4.3.4")];
    let signed = signature_algorithm(certificate)?;
    let algorithm = match signed {
        it if SHA_256.contains(&it) => &digest::SHA256,
        it if SHA_384.contains(&it) => &digest::SHA384,
        it if SHA_512.contains(&it) => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().into())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        SignatureAlgorithm,
    };

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> (String, String, CertificateDer<'static>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem(), certificate.der().clone())
    }

    #[test]
    fn an_end_point_has_the_digest_of_its_signature() {
        for (algorithm, length) in
            [(&PKCS_ECDSA_P256_SHA256, Some(32)), (&PKCS_ECDSA_P384_SHA384, Some(48)), (&PKCS_ED25519, None)]
        {
            let (chain, key, _) = certificate(algorithm);
            let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes(), None).unwrap();
            assert_eq!(tls.end_point().map(<[u8]>::len), length);
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (chain, key, _) = certificate(&PKCS_ECDSA_P256_SHA256);
        let (_, other, _) = certificate(&PKCS_ECDSA_P256_SHA256);
        let any = || CertificateRule::Any;
        for (chain, key, clients, said) in [
            (&*chain, &*other, None, "cannot be used"),
            ("", &*key, None, "the certificate chain cannot be read"),
            (&*key, &*key, None, "the certificate chain cannot be read"),
            (&*chain, &*chain, None, "the private key cannot be read"),
            (&*chain, &*key, Some((&b""[..], any())), "the clients' certificate authority cannot be read"),
        ] {
            let error = Tls::from_pem(chain.as_bytes(), key.as_bytes(), clients).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!error.hint().is_empty());
        }
        let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes(), Some((chain.as_bytes(), any()))).unwrap();
        assert!(tls.asks_for_certificates());
        assert!(!format!("{tls:?}").contains("BEGIN"));
    }
}
