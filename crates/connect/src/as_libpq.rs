//! A server's certificate against the certificates of `sslrootcert`, where OpenSSL and so libpq decide otherwise than rustls.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_KP_SERVER_AUTH};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};

use crate::untrusted::{IssuerNaming, is_authority_itself};

/// The certificates of `sslrootcert` that mean more, or less, to OpenSSL than a root to rustls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Special {
    /// Self-signed certificates that a server may show itself, though they are those of an authority: what
    /// `openssl req -x509` makes.
    servers: Vec<CertificateDer<'static>>,
    /// Certificates that another authority signed: they complete a chain, and none ends in them. (OpenSSL takes one for the
    /// end of a chain only with `X509_V_FLAG_PARTIAL_CHAIN`, which libpq does not set.)
    intermediates: Vec<CertificateDer<'static>>,
}

impl Special {
    /// Adds a certificate, and returns whether it is a root.
    pub(crate) fn add(&mut self, certificate: &CertificateDer<'static>) -> bool {
        // A certificate that `x509-cert` cannot parse is left to rustls as a root.
        let Ok(read) = Certificate::from_der(certificate) else { return true };
        let is_root = read.tbs_certificate().issuer() == read.tbs_certificate().subject();
        if !is_root {
            self.intermediates.push(certificate.clone());
        } else if may_serve(&read) {
            self.servers.push(certificate.clone());
        }
        is_root
    }
}

/// Whether its extensions allow it to be a server's, as OpenSSL reads them (`X509_check_purpose`, `X509_PURPOSE_SSL_SERVER`).
fn may_serve(certificate: &Certificate) -> bool {
    let usage = certificate.tbs_certificate().get_extension::<KeyUsage>();
    let purposes = certificate.tbs_certificate().get_extension::<ExtendedKeyUsage>();
    let (Ok(usage), Ok(purposes)) = (usage, purposes) else { return false };
    let signs =
        |usage: &KeyUsage| usage.digital_signature() || usage.key_encipherment() || usage.key_agreement();
    let serves = |purposes: &ExtendedKeyUsage| {
        purposes.0.iter().any(|it| [ID_KP_SERVER_AUTH, ANY_EXTENDED_KEY_USAGE].contains(it))
    };
    usage.is_none_or(|(_, usage)| signs(&usage)) && purposes.is_none_or(|(_, purposes)| serves(&purposes))
}

/// A verifier that decides as libpq with the same `sslrootcert`.
#[derive(Debug)]
pub(crate) struct AsLibpq {
    pub(crate) inner: IssuerNaming,
    pub(crate) special: Special,
    pub(crate) checks_name: bool,
}

impl ServerCertVerifier for AsLibpq {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.special.servers.iter().any(|own| own == certificate) {
            let all: Vec<_> = intermediates.iter().chain(&self.special.intermediates).cloned().collect();
            return self.inner.verify_server_cert(certificate, &all, server_name, ocsp_response, now);
        }
        // The certificate is its own root. webpki checks the dates before it rejects a CA certificate as an end entity, so
        // after this error only the name is left to check.
        match self.inner.0.verify_server_cert(certificate, intermediates, server_name, ocsp_response, now) {
            Err(error) if is_authority_itself(&error) => {
                if self.checks_name {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The verifier for a connection: as libpq where `sslrootcert` names the authorities.
pub(crate) fn verifier(
    inner: IssuerNaming,
    special: Option<&Special>,
    checks_name: bool,
) -> Arc<dyn ServerCertVerifier> {
    match special {
        Some(special) => Arc::new(AsLibpq { inner, special: special.clone(), checks_name }),
        None => Arc::new(inner),
    }
}
