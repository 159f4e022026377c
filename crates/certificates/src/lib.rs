//! A certificate authority for this machine: its certificate is for trust stores.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_RSA_SHA256,
    PublicKeyData as _, RsaKeySize, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::server::{ResolvesServerCert, ResolvesServerCertUsingSni};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::SecretString;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::BasicConstraints as BasicConstraintsExtension;

/// A local certificate authority, in memory. Its key leaves memory only through [`Authority::to_pem`].
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key, as a server needs it.
pub struct Issued {
    /// The certificate, then its issuer.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the certificate (PKCS#8).
    pub key: PrivateKeyDer<'static>,
}

/// A certificate could not be made: a name is not a DNS name or address, or the crypto library failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate")]
pub struct CertificateError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Authority {
    /// A new authority with an ECDSA P-256 key.
    ///
    /// It carries what OpenSSL, rustls, Python and Node ask of a root: basic constraints and key usage, critical, and
    /// a subject key identifier that the issued certificates point to. The certificates are valid from 2020 to 2049
    /// whatever the clock of the local cloud says: the key is lost when the process ends, so a short window would not
    /// add protection, and tests move clocks.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn generate() -> Result<Self, CertificateError> {
        Self::named("pgentra local CA")
    }

    /// As [`Authority::generate`], with a common name of its own.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn named(common_name: &str) -> Result<Self, CertificateError> {
        Self::with(root(common_name)?, KeyPair::generate().map_err(failed)?)
    }

    /// As [`Authority::generate`], for certificates of `localhost` and loopback addresses only: a
    /// client that trusts it is not deceived about any other name, should its key be stolen (RFC
    /// 5280 section 4.2.1.10). For an authority that is kept.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn of_loopback() -> Result<Self, CertificateError> {
        Self::with(loopback_root()?, KeyPair::generate().map_err(failed)?)
    }

    /// An authority from its certificate and its private key in PEM: one that [`Authority::to_pem`] wrote, or another.
    ///
    /// # Errors
    /// If the text has no certificate or no key, if the certificate may not sign others, or if the key is not the
    /// certificate's.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(failed)?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(failed)?;
        let key = KeyPair::try_from(&key).map_err(failed)?;
        let public = key.subject_public_key_info();
        if !certificate.windows(public.len()).any(|part| part == public) {
            return Err(failed("the key is not that of the certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed)?;
        // RFC 5280 section 4.2.1.9: a certificate without the extension is not one of an authority either.
        let read = Certificate::from_der(&certificate).map_err(failed)?;
        let constraints =
            read.tbs_certificate().get_extension::<BasicConstraintsExtension>().map_err(failed)?;
        if !constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(failed("the certificate may not sign others: its basic constraints lack CA:TRUE"));
        }
        // RFC 5280 section 4.2.1.3. A certificate without the extension may do everything.
        let usages = issuer.key_usages();
        if !usages.is_empty() && !usages.contains(&KeyUsagePurpose::KeyCertSign) {
            return Err(failed("the certificate may not sign others: its key usage lacks keyCertSign"));
        }
        let mut pem = String::new();
        push_pem(&mut pem, "CERTIFICATE", &certificate);
        Ok(Self { issuer, certificate, pem })
    }

    /// The certificate and then the private key in PEM. A program that has it can sign for each name for which clients
    /// trust the certificate.
    pub fn to_pem(&self) -> SecretString {
        let mut text = self.pem.clone();
        push_pem(&mut text, "PRIVATE KEY", &self.issuer.key().serialize_der());
        text.into()
    }

    fn with(params: CertificateParams, key: KeyPair) -> Result<Self, CertificateError> {
        let signed = params.self_signed(&key).map_err(failed)?;
        let (certificate, pem) = (signed.der().clone(), signed.pem());
        Ok(Self { issuer: Issuer::new(params, key), certificate, pem })
    }

    /// The authority's certificate in PEM, for `SSL_CERT_FILE`, `NODE_EXTRA_CA_CERTS`, `PGSSLROOTCERT` and the like.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for `names`: DNS names and IP addresses. The first name is the common name too.
    ///
    /// # Errors
    /// If there is no name, if one is neither a DNS name nor an address, or if the crypto library fails.
    pub fn issue(&self, names: &[&str]) -> Result<Issued, CertificateError> {
        let common_name = names.first().ok_or_else(|| failed("a server certificate needs a name"))?;
        let mut params = parameters(common_name, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued::new(vec![certificate.der().clone(), self.certificate.clone()], &key))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Issued {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        Self { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    /// A TLS 1.2 and 1.3 server configuration with this certificate, on aws-lc-rs, asking no client certificate.
    /// `alpn` lists the protocols it agrees to; empty means it does not negotiate one.
    ///
    /// # Errors
    /// If rustls refuses the key.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, CertificateError> {
        let resolver = SingleCertAndKey::from(self.certified_key()?);
        server_config(Arc::new(resolver), alpn)
    }
}

impl Issued {
    /// SHA-1 of the certificate as 40 upper-case hexadecimal digits: the name Windows and Azure know it by.
    pub fn thumbprint(&self) -> String {
        let certificate = self.chain.first().map(|certificate| &**certificate).unwrap_or_default();
        let thumbprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
        thumbprint.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The chain and then the key in PEM, in one text, as client libraries read a certificate file.
    pub fn pem(&self) -> SecretString {
        let mut text = String::new();
        for certificate in &self.chain {
            push_pem(&mut text, "CERTIFICATE", certificate);
        }
        push_pem(&mut text, "PRIVATE KEY", self.key.secret_der());
        text.into()
    }

    /// The certificate and its key as a server of `rustls` takes them.
    ///
    /// # Errors
    /// If `rustls` does not take the key.
    pub fn certified_key(&self) -> Result<CertifiedKey, CertificateError> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider).map_err(failed)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl CertificateError {
    /// An error with this cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// A server that has a certificate for the clients that ask for `name` (RFC 6066 section 3), and for no others.
///
/// # Errors
/// If `rustls` does not take the key or the name.
pub fn server_config_for_name(name: &str, issued: &Issued) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut resolver = ResolvesServerCertUsingSni::new();
    resolver.add(name, issued.certified_key()?).map_err(failed)?;
    server_config(Arc::new(resolver), &[b"http/1.1"])
}

fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, CertificateError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A self-signed RSA certificate, as an application registers one to prove itself.
///
/// # Errors
/// If no key can be generated.
pub fn client_certificate(common_name: &str) -> Result<Issued, CertificateError> {
    let mut params = parameters(common_name, &[])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Issued::new(vec![certificate.der().clone()], &key))
}

/// Names under which clients on this machine reach a server bound to `address`.
pub fn names_of(address: IpAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = address.to_string();
    if !names.contains(&own) {
        names.push(own);
    }
    names
}

fn root(common_name: &str) -> Result<CertificateParams, CertificateError> {
    let mut params = parameters(common_name, &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The parameters of [`Authority::of_loopback`], which are the same each time.
fn loopback_root() -> Result<CertificateParams, CertificateError> {
    let mut params = root("pgentra local CA")?;
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv6Addr::LOCALHOST.into(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn parameters(common_name: &str, names: &[&str]) -> Result<CertificateParams, CertificateError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

/// RFC 7468: base64 in lines of 64 between two markers.
fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let encoded = STANDARD.encode(der);
    let mut rest = &*encoded;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

fn failed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CertificateError {
    CertificateError::new(cause)
}

#[cfg(test)]
mod tests {
    use rustls::client::danger::ServerCertVerifier as _;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_certificate_needs_a_name_and_a_proper_one() {
        let authority = Authority::generate().unwrap();
        assert!(authority.issue(&[]).is_err());
        assert!(authority.issue(&["käse.example"]).is_err());
        assert_eq!(authority.issue(&["localhost", "::1"]).unwrap().chain.len(), 2);
    }

    /// Whether a client that trusts `root` accepts a server of `issued` as `name`.
    fn accepts(root: &Authority, issued: &Issued, name: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let (end, issuers) = issued.chain.split_first().unwrap();
        let now = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let name = name.to_owned().try_into().unwrap();
        verifier.build().unwrap().verify_server_cert(end, issuers, &name, &[], now).is_ok()
    }

    #[test]
    fn a_kept_authority_signs_for_this_machine_alone() {
        let first = Authority::of_loopback().unwrap();
        let kept = Authority::from_pem(first.to_pem().expose_secret()).unwrap();
        assert_eq!(kept.pem(), first.pem());
        for name in ["localhost", "127.0.0.1", "::1"] {
            let issued = kept.issue(&["localhost", "127.0.0.1", "::1"]).unwrap();
            assert!(accepts(&first, &issued, name), "{name}");
        }
        let open = Authority::generate().unwrap();
        for name in ["bank.example", "192.0.2.1"] {
            assert!(accepts(&open, &open.issue(&[name]).unwrap(), name), "{name}");
            assert!(!accepts(&first, &kept.issue(&[name]).unwrap(), name), "{name}");
        }
        assert!(Authority::from_pem(first.pem()).is_err(), "a key is needed");
    }

    #[test]
    fn an_authority_of_another_program_signs() {
        // As `openssl req -x509` and Helm's genCA make them: an RSA key, an organisation, no path length.
        let mut params = parameters("an authority", &[]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "Contoso");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let text = format!("{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem());
        let authority = Authority::from_pem(&text).unwrap();
        assert!(text.contains(authority.pem().trim_end()));
        let issued = authority.issue(&["azure.test.svc"]).unwrap();
        assert!(accepts(&authority, &issued, "azure.test.svc"));
    }

    #[test]
    fn a_certificate_that_may_not_sign_others_is_not_an_authority() {
        let refused = |text: &str| format!("{:?}", Authority::from_pem(text).unwrap_err().0);
        let leaf = client_certificate("a program").unwrap();
        assert!(refused(leaf.pem().expose_secret()).contains("CA:TRUE"));
        let signed = |is_ca: IsCa, key_usages: &[KeyUsagePurpose]| {
            let mut params = parameters("a program", &[]).unwrap();
            params.is_ca = is_ca;
            params.key_usages = key_usages.to_vec();
            let key = KeyPair::generate().unwrap();
            format!("{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem())
        };
        // As `openssl x509 -req` makes them: no key usage.
        for is_ca in [IsCa::ExplicitNoCa, IsCa::NoCa] {
            assert!(refused(&signed(is_ca, &[])).contains("CA:TRUE"));
        }
        let unconstrained = IsCa::Ca(BasicConstraints::Unconstrained);
        let text = signed(unconstrained, &[KeyUsagePurpose::DigitalSignature]);
        assert!(refused(&text).contains("keyCertSign"));
        assert!(Authority::from_pem(&signed(unconstrained, &[])).is_ok());
    }

    #[test]
    fn debug_output_shows_no_key() {
        let authority = Authority::generate().unwrap();
        let issued = authority.issue(&["localhost"]).unwrap();
        assert_eq!(format!("{authority:?}"), "Authority { .. }");
        assert_eq!(format!("{issued:?}"), "Issued { chain: 2, .. }");
    }
}
