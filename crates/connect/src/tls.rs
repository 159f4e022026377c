//! TLS towards the server, with its certificate verified.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use pgentra_wire::startup::{self, EncryptionAnswer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::as_libpq;
use crate::error::{ConnectError, ConnectErrorKind, TlsFailure};
use crate::quote;
use crate::roots::{RootSource, Roots};
use crate::stream::TlsStream;
use crate::target::{SslMode, SslNegotiation};
use crate::untrusted::{IssuerNaming, Untrusted, is_authority_itself};

/// The TLS settings for a mode and the authorities to trust: TLS 1.2 and 1.3, aws-lc-rs, PostgreSQL's protocol name.
/// Reads the operating system's authorities, which takes milliseconds: keep the result, which also resumes sessions.
///
/// # Errors
/// `verify-ca` with the operating system's authorities; a system without any.
pub fn client_config(mode: SslMode, roots: &Roots) -> Result<Arc<ClientConfig>, ConnectError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let special = match &roots.0 {
        RootSource::Platform => None,
        RootSource::Own { special, .. } => Some(special),
    };
    let naming = IssuerNaming(verifier(mode, roots, &provider)?);
    let verifier = as_libpq::verifier(naming, special, mode == SslMode::VerifyFull);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::config("the TLS settings do not fit together").because(error))?;
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // Servers before PostgreSQL 17 ignore it; with direct negotiation it is what makes a cross-protocol attack fail.
    config.alpn_protocols = vec![startup::ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn verifier(
    mode: SslMode,
    roots: &Roots,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConnectError> {
    let provider = Arc::clone(provider);
    match (mode, &roots.0) {
        (SslMode::VerifyFull, RootSource::Platform) => {
            let verifier = Verifier::new(provider).map_err(|error| {
                ConnectError::config("this system has no certificate authorities to trust")
                    .because(error)
                    .hinting("install the package ca-certificates, or name a file with sslrootcert")
            })?;
            Ok(Arc::new(verifier))
        }
        (SslMode::VerifyFull, RootSource::Own { store, .. }) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(store), provider).build();
            verifier.map(|verifier| verifier as Arc<dyn ServerCertVerifier>).map_err(|error| {
                ConnectError::config("the trusted authorities cannot be used").because(error)
            })
        }
        (SslMode::VerifyCa, RootSource::Own { store, .. }) => Ok(Arc::new(AnyName {
            roots: Arc::clone(store),
            algorithms: provider.signature_verification_algorithms,
        })),
        // libpq refuses this too: any site's certificate would do, because the name is not compared.
        (SslMode::VerifyCa, RootSource::Platform) => {
            Err(ConnectError::config("sslmode=verify-ca needs the server's own authority in sslrootcert"))
        }
    }
}

/// `verify-ca`: the chain, the validity and the proof that the server holds the key are checked, the name is not.
#[derive(Debug)]
struct AnyName {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Turns a connection to `host` into verified TLS, or closes it. Until it returns, not a byte about role, database or
/// token has been written.
pub(crate) async fn secure<S>(
    mut stream: S,
    host: &str,
    negotiation: SslNegotiation,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if negotiation == SslNegotiation::Postgres {
        ask_for_tls(&mut stream, host).await?;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        ConnectError::config(format!("{host} cannot be the name of a server", host = quote::name(host)))
            .because(error)
    })?;
    // An IP address as the name sends no SNI; the certificate must then list the address.
    let stream = TlsStream::connect(stream, Arc::clone(config), name)
        .await
        .map_err(|error| handshake_failed(error, host, negotiation))?;
    // Without the request for TLS only ALPN proves that PostgreSQL answers, not another TLS service of the same host.
    if negotiation == SslNegotiation::Direct && stream.agreed().alpn_protocol() != Some(startup::ALPN) {
        return Err(tls_error(
            TlsFailure::Handshake,
            format!("{host} did not say that it speaks PostgreSQL"),
        )
        .hinting("leave sslnegotiation=direct out: it needs PostgreSQL 17 or later"));
    }
    Ok(stream)
}

async fn ask_for_tls<S>(stream: &mut S, host: &str) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = BytesMut::new();
    startup::encode_ssl_request(&mut request);
    let mut answer = [0];
    let asked = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        // Exactly one byte is read: later bytes belong to the TLS handshake, so clear text is never used after it
        // (CVE-2021-23222).
        stream.read_exact(&mut answer).await
    };
    asked.await.map_err(|error| {
        ConnectError::protocol(format!("{host} hung up when asked for TLS"))
            .because(error)
            .hinting("is this a PostgreSQL server, and does its firewall let this machine in?")
    })?;
    match EncryptionAnswer::decode(&mut BytesMut::from(&answer[..])) {
        Ok(Some(EncryptionAnswer::Accepted)) => Ok(()),
        Ok(Some(EncryptionAnswer::Refused)) => {
            Err(tls_error(TlsFailure::Declined, format!("{host} has no TLS, so the token was not sent"))
                .hinting(
                    "turn TLS on at the server; Azure has it always, so this may not be the server you mean",
                ))
        }
        // Its text is not shown: it came without TLS, so that anything in the network could have sent it (CVE-2024-10977).
        Ok(Some(EncryptionAnswer::Error)) => Err(tls_error(
            TlsFailure::ErrorInTheClear,
            format!("{host} answered the request for TLS with an error"),
        )
        .hinting("look at the server's log: it may be out of connections, or not be PostgreSQL")),
        Ok(None) | Err(_) => {
            Err(tls_error(TlsFailure::NotTls, format!("what answers at {host} is not a PostgreSQL server"))
                .hinting("compare host and port with those of the server"))
        }
    }
}

pub(crate) fn handshake_failed(error: io::Error, host: &str, negotiation: SslNegotiation) -> ConnectError {
    use CertificateError as Bad;
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (failure, message, hint) = match cause {
        Some(rustls::Error::InvalidCertificate(
            Bad::NotValidForName | Bad::NotValidForNameContext { .. },
        )) => (
            TlsFailure::Name,
            format!("the certificate of the server is not for {host}"),
            "use the name that the certificate is for; where only another name resolves, sslmode=verify-ca with sslrootcert",
        ),
        // webpki refuses an authority's certificate for a server; libpq accepts it, so a working setup brings users here.
        Some(error) if is_authority_itself(error) => (
            TlsFailure::Certificate,
            format!("the certificate of {host} is that of an authority"),
            "the server needs a certificate without CA:TRUE, signed by the authority; a self-signed one is trusted where sslrootcert names a file with it",
        ),
        // A bad signature: an authority of the same name, such as one that was made anew, with another key.
        Some(rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature | Bad::Other(_))) => (
            TlsFailure::UnknownIssuer,
            format!("the certificate of {host} is not signed by a trusted authority"),
            "for a private authority name its certificate with sslrootcert=FILE; otherwise another server may intercept the connection",
        ),
        Some(rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        )) => (
            TlsFailure::Validity,
            format!("the certificate of {host} is not valid at this time"),
            "compare this machine's clock; else the server needs a new certificate",
        ),
        Some(rustls::Error::InvalidCertificate(_)) => (
            TlsFailure::Certificate,
            format!("the certificate of {host} is not acceptable"),
            "the server needs another certificate",
        ),
        Some(rustls::Error::InvalidMessage(_)) => (
            TlsFailure::NotTls,
            format!("what answers at {host} does not speak TLS"),
            "compare host and port with those of the server",
        ),
        _ if negotiation == SslNegotiation::Direct => (
            TlsFailure::Handshake,
            format!("{host} ended the TLS handshake"),
            "leave sslnegotiation=direct out: it needs PostgreSQL 17 or later",
        ),
        _ => (
            TlsFailure::Handshake,
            format!("{host} ended the TLS handshake"),
            "the server must speak TLS 1.2 or 1.3; look at its log",
        ),
    };
    let told = tls_error(failure, message).hinting(hint);
    match cause.and_then(Untrusted::of) {
        Some(untrusted) => told.because(untrusted),
        None => told.because(error),
    }
}

fn tls_error(failure: TlsFailure, message: String) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Tls(failure), message)
}
