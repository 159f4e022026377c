//! The issuer of an untrusted certificate: the authority that is missing from the roots.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use webpki::EndEntityCert;

use crate::quote;

/// Wraps a verifier, and adds the authority's name to its error `UnknownIssuer`.
#[derive(Debug)]
pub(crate) struct IssuerNaming(pub(crate) Arc<dyn ServerCertVerifier>);

/// The end of a chain of certificates that leads to no trusted authority.
#[derive(Debug, Clone)]
pub(crate) struct Untrusted {
    issuer: String,
}

impl Untrusted {
    /// What [`IssuerNaming`] put into an error of a handshake.
    pub(crate) fn of(error: &rustls::Error) -> Option<Untrusted> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref().cloned()
            }
            _ => None,
        }
    }
}

impl ServerCertVerifier for IssuerNaming {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify_server_cert(certificate, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| {
            let unknown = error == rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
            let by_itself = is_authority_itself(&error) && issues(certificate, certificate);
            let issuer = (unknown || by_itself).then(|| issuer(top(certificate, intermediates))).flatten();
            match issuer {
                Some(issuer) => {
                    let untrusted = OtherError(Arc::new(Untrusted { issuer }));
                    rustls::Error::InvalidCertificate(CertificateError::Other(untrusted))
                }
                None => error,
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is signed by {}, which is not among the trusted authorities", quote::name(&self.issuer))
    }
}

impl Error for Untrusted {}

/// Whether a verifier of rustls says that a server shows a certificate of an authority.
pub(crate) fn is_authority_itself(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            other.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}

/// The last certificate of the chain that these others complete, whatever their order.
fn top<'a>(certificate: &'a CertificateDer<'a>, others: &'a [CertificateDer<'a>]) -> &'a CertificateDer<'a> {
    let mut top = certificate;
    // No chain is longer than all of them.
    for _ in others {
        match others.iter().find(|other| issues(other, top) && !issues(top, top)) {
            Some(issuer) => top = issuer,
            None => break,
        }
    }
    top
}

/// Whether the subject of one is the issuer of the other.
fn issues(issuer: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    match (EndEntityCert::try_from(issuer), EndEntityCert::try_from(certificate)) {
        (Ok(issuer), Ok(certificate)) => issuer.subject() == certificate.issuer(),
        _ => false,
    }
}

/// The common name of a certificate's issuer, or else the organisation.
fn issuer(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let name = certificate.issuer();
    [COMMON_NAME, ORGANISATION].into_iter().find_map(|attribute| find(name, attribute))
}

/// Object identifiers of attributes, 2.5.4.3 and 2.5.4.10 (X.520), in DER.
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
const ORGANISATION: &[u8] = b"\x06\x03\x55\x04\x0a";

/// X.520 allows 64 characters for either. A longer one has a length of another form, and is not read.
const LONGEST: usize = 127;

/// The text behind an attribute's identifier: a tag, a length of one byte, the characters.
fn find(name: &[u8], attribute: &[u8]) -> Option<String> {
    let at = name.windows(attribute.len()).position(|window| window == attribute)? + attribute.len();
    let length = usize::from(*name.get(at + 1)?);
    let text = name.get(at + 2..at + 2 + length).filter(|_| length <= LONGEST)?;
    // A control character in a terminal can hide or forge lines.
    let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_whatever_stands_around_it() {
        let of = |attribute: &[u8], text: &str| {
            let length = u8::try_from(text.len()).unwrap();
            [b"\x31\x0c\x30\x0a", attribute, &[0x0c, length], text.as_bytes()].concat()
        };
        let name = [of(ORGANISATION, "Evil Corp"), of(COMMON_NAME, "Evil\u{1b}[2J Root")].concat();
        assert_eq!(find(&name, COMMON_NAME).as_deref(), Some("Evil[2J Root"));
        assert_eq!(find(&name, ORGANISATION).as_deref(), Some("Evil Corp"));
        for length in 0..name.len() {
            find(&name[..length], COMMON_NAME);
        }
        assert_eq!(find(&[COMMON_NAME, b"\x0c\x81\x01a"].concat(), COMMON_NAME), None);
        assert_eq!(find(&of(COMMON_NAME, ""), COMMON_NAME), None);
        assert_eq!(find(b"", COMMON_NAME), None);
    }
}
