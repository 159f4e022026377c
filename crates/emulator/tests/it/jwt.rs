//! Takes tokens apart and verifies them with the published keys, in code that shares nothing with the emulator.

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_emulator::LocalAzure;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;

use crate::client::Ask;

/// Header and claims of a token that any key of `set` signed.
pub(crate) fn verified(token: &str, set: &Value) -> Option<(Value, Value)> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let parse = |part| serde_json::from_slice::<Value>(&decode(part)).unwrap();
    let (header, claims) = (parse(header), parse(claims));
    let key = set["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    let text = |name: &str| decode(key[name].as_str().unwrap());
    RsaPublicKeyComponents { n: text("n"), e: text("e") }
        .verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &decode(signature))
        .ok()?;
    Some((header, claims))
}

/// The key set, fetched as a server would.
pub(crate) async fn published(azure: &LocalAzure) -> Value {
    Ask::get(azure.keys_url()).trusting(azure.ca_pem()).send().await.unwrap().json()
}

/// The claims of a token that the tenant signed.
pub(crate) async fn claims(azure: &LocalAzure, token: &str) -> Value {
    verified(token, &published(azure).await).unwrap().1
}

/// Connects to the server at `url`, whose certificate must have the pinned thumbprint.
pub(crate) async fn pinned(url: &str, thumbprint: &str) {
    let address = url.trim_start_matches("https://").split('/').next().unwrap();
    let pin = Arc::new(Pin(thumbprint.to_owned()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
}

/// Accepts the certificate with one SHA-1 thumbprint.
#[derive(Debug)]
struct Pin(String);

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let thumbprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
        let thumbprint: String = thumbprint.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(thumbprint, self.0);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}
