use std::sync::Arc;

use aws_lc_rs::digest;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::SourceSettings;
use crate::retry::RetryPolicy;
use crate::{AccessToken, NoToken, SourceName, TokenError, TokenRequest, TokenSource, answer};
use pgentra_system::http::{Request, provider};

/// The version that the Azure SDKs for Go and Python ask for.
const API_VERSION: &str = "2019-07-01-preview";

const NAME: SourceName = SourceName::ServiceFabric;

/// The token service of a Service Fabric node (Microsoft: how-to-managed-identity-service-fabric-app-code).
///
/// Its certificate is self-signed; the platform gives its SHA-1 thumbprint in a variable. That certificate, and no other,
/// is trusted for this one connection, and for nothing else.
#[derive(Debug)]
pub(super) struct ServiceFabricSource {
    setup: SourceSettings,
}

impl ServiceFabricSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let system = &self.setup.system;
        let make = || self.request(request.resource.as_str());
        let response = RetryPolicy::SERVICE_FABRIC.send(system.http(), NAME, request.deadline, make).await?;
        Ok(answer::read_token(NAME, request.resource, &response, system.clock().now())?)
    }

    fn request(&self, resource: &str) -> Result<Request, TokenError> {
        let endpoint = self.setup.need(NAME, "IDENTITY_ENDPOINT")?;
        let header = self.setup.need(NAME, "IDENTITY_HEADER")?;
        let thumbprint = self.setup.need(NAME, "IDENTITY_SERVER_THUMBPRINT")?;
        if !endpoint.starts_with("https://") {
            return Err(TokenError::config(NAME, "IDENTITY_ENDPOINT does not start with https://"));
        }
        let thumbprint = parse_thumbprint(&thumbprint).ok_or_else(|| {
            TokenError::config(
                NAME,
                "IDENTITY_SERVER_THUMBPRINT is not a SHA-1 thumbprint of 40 hexadecimal digits",
            )
        })?;
        let tls = pinned(thumbprint)
            .map_err(|cause| TokenError::config(NAME, "TLS cannot be set up").caused_by(cause))?;
        let make = || {
            let request = Request::get(&endpoint)?.secret_header("secret", &header)?.tls(tls, None);
            request.query(&[("api-version", API_VERSION), ("resource", resource)])
        };
        make().map_err(|cause| {
            TokenError::config(NAME, "IDENTITY_ENDPOINT or IDENTITY_HEADER cannot be used").caused_by(cause)
        })
    }
}

impl TokenSource for ServiceFabricSource {
    fn name(&self) -> SourceName {
        NAME
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

fn pinned(thumbprint: [u8; 20]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls' name for "a verifier of one's own": this one knows a single certificate
        .with_custom_certificate_verifier(Arc::new(Pinned { thumbprint, provider }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Trusts one certificate, whatever its name and dates. The peer must still prove that it holds the key.
#[derive(Debug)]
struct Pinned {
    thumbprint: [u8; 20],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, end_entity);
        match aws_lc_rs::constant_time::verify_slices_are_equal(found.as_ref(), &self.thumbprint) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// 40 hexadecimal digits, with colons and blanks between them as people write thumbprints.
fn parse_thumbprint(text: &str) -> Option<[u8; 20]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':' && !c.is_whitespace())
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum * 16 + digit)).collect();
    if digits.len() == 40 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_are_read_as_people_write_them() {
        let plain = "00112233445566778899aabbccddeeff00112233";
        let bytes = parse_thumbprint(plain).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[15]), (0x00, 0x11, 0xff));
        for text in [
            "00112233445566778899AABBCCDDEEFF00112233",
            "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33",
            " 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00 11 22 33 ",
        ] {
            assert_eq!(parse_thumbprint(text), Some(bytes), "{text}");
        }
        for text in ["", "00", &plain[1..], &format!("{plain}00"), "g0112233445566778899aabbccddeeff00112233"]
        {
            assert_eq!(parse_thumbprint(text), None, "{text}");
        }
    }
}
