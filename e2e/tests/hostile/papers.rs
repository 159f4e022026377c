//! Certificates: good ones, and others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// An authority whose certificates lie in a folder.
pub(crate) struct Papers {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) folder: PathBuf,
}

/// A certificate and its key, in PEM.
pub(crate) struct Paper {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The parameters of a certificate for clients.
pub(crate) fn client_params(names: &[(DnType, &str)]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (kind, name) in names {
        params.distinguished_name.push(kind.clone(), *name);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Papers {
    /// With `ca.pem`, `server.pem` and `server.key` in the folder.
    pub(crate) fn new(folder: &Path) -> Papers {
        let mut params = client_params(&[(DnType::CommonName, "an authority")]);
        params.extended_key_usages = Vec::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        let papers = Papers { issuer, folder: folder.to_owned() };
        let server = papers.server(&["localhost", "127.0.0.1"]);
        fs::write(folder.join("server.pem"), server.certificate).unwrap();
        private(&folder.join("server.key"), &server.key);
        papers
    }

    /// A certificate for a server of these names.
    pub(crate) fn server(&self, names: &[&str]) -> Paper {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A certificate with these parameters.
    pub(crate) fn issue(&self, params: &CertificateParams) -> Paper {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Paper { certificate, key: key.serialize_pem() }
    }

    /// A certificate that signs itself.
    pub(crate) fn alone(params: &CertificateParams) -> Paper {
        let key = KeyPair::generate().unwrap();
        Paper { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// The authority's own certificate and key.
    pub(crate) fn own(&self) -> Paper {
        Paper { certificate: self.issuer.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// TLS of a client that trusts this authority, with a certificate of its own or without, and with these ALPN protocols.
    pub(crate) fn client(&self, own: Option<&Paper>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder().with_root_certificates(roots(&self.issuer.pem()));
        let mut config = match own {
            // not `with_client_auth_cert`: that looks into the certificate, and some are bad on purpose
            Some(paper) => {
                let key = any_supported_type(&key(&paper.key)).unwrap();
                let certified = CertifiedKey::new(chain(&paper.certificate), key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// TLS of a server with the certificate in the folder.
    pub(crate) fn serving(paper: &Paper) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder().with_no_client_auth();
        Arc::new(builder.with_single_cert(chain(&paper.certificate), key(&paper.key)).unwrap())
    }
}

/// TLS of a client that trusts these authorities.
pub(crate) fn trusting(pem: &str) -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(roots(pem)).with_no_client_auth())
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(pem));
    roots
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A file for its owner alone.
pub(crate) fn private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
