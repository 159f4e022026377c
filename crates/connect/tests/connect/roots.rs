//! A server's certificate against the certificates of `sslrootcert`: the same is trusted as by libpq.

use std::process::Stdio;
use std::sync::Arc;

use pgentra_connect::{ConnectErrorKind, TlsFailure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::server::{Machine, Server, Tls, Verdict, cleartext};

/// A certificate with its key.
struct Made {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: Vec<u8>,
}

impl Made {
    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

fn parameters(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    // As openssl does: of several certificates of one name, OpenSSL finds the issuer by it.
    parameters.use_authority_key_identifier_extension = true;
    change(&mut parameters);
    parameters
}

fn authority(parameters: &mut CertificateParams) {
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

fn made(parameters: CertificateParams, by: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let pkcs8 = key.serialize_der();
    let issuer = match by {
        None => CertifiedIssuer::self_signed(parameters, key),
        Some(by) => CertifiedIssuer::signed_by(parameters, key, &by.issuer),
    };
    Made { issuer: issuer.unwrap(), key: pkcs8 }
}

fn shows(chain: &[&Made]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(chain[0].key.clone()).into();
    let chain = chain.iter().map(|made| made.der()).collect();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// What psql says of the same server; `None` without psql.
async fn libpq_trusts(port: u16, file: &std::path::Path, mode: &str) -> Option<bool> {
    let conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=myuser dbname=postgres sslmode={mode} sslrootcert='{}' \
         gssencmode=disable password=x",
        file.display()
    );
    let mut psql = tokio::process::Command::new("psql");
    psql.args(["-XAtqc", "SELECT 42", &conninfo]).env_clear().stdin(Stdio::null());
    let done = psql.env("PATH", "/usr/bin:/bin").output().await.ok()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() || said.contains("certificate"), "{said}");
    Some(done.status.success())
}

#[tokio::test]
async fn the_same_is_trusted_as_by_libpq() {
    let machine = Machine::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    let is_root = |change: fn(&mut CertificateParams)| {
        made(
            parameters("localhost", |parameters| {
                authority(parameters);
                change(parameters);
            }),
            None,
        )
    };
    // What `openssl req -x509` makes.
    let own = is_root(|_| {});
    let twin = is_root(|_| {});
    let no_authority = made(parameters("localhost", |_| {}), None);
    let signs_alone =
        is_root(|it| it.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    let signs_both =
        is_root(|it| it.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature]);
    let of_clients = is_root(|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let of_both = is_root(|it| {
        it.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    });
    let expired = is_root(|it| it.not_after = date_time_ymd(2001, 1, 1));
    let future = is_root(|it| it.not_before = date_time_ymd(2901, 1, 1));
    let other_name = made(parameters("other", |it| (authority(it), it.subject_alt_names.clear()).0), None);
    let root = made(parameters("Root", authority), None);
    let intermediate = made(parameters("Intermediate", authority), Some(&root));
    let leaf = made(parameters("localhost", |_| {}), Some(&intermediate));

    let untrusted = Some(TlsFailure::UnknownIssuer);
    for (about, chain, trusted, failure, failure_of_any_name) in [
        ("it is its own root", &[&own][..], &[&own][..], None, None),
        ("one of several", &[&own], &[&twin, &root, &own], None, None),
        ("the same name, another key", &[&own], &[&twin], untrusted, untrusted),
        ("nothing like it", &[&own], &[&root], untrusted, untrusted),
        ("no authority", &[&no_authority], &[&no_authority], None, None),
        ("its key signs certificates alone", &[&signs_alone], &[&signs_alone], untrusted, untrusted),
        ("its key signs certificates too", &[&signs_both], &[&signs_both], None, None),
        ("for clients alone", &[&of_clients], &[&of_clients], untrusted, untrusted),
        ("for clients too", &[&of_both], &[&of_both], None, None),
        ("expired", &[&expired], &[&expired], Some(TlsFailure::Validity), Some(TlsFailure::Validity)),
        ("not valid yet", &[&future], &[&future], Some(TlsFailure::Validity), Some(TlsFailure::Validity)),
        ("another name", &[&other_name], &[&other_name], Some(TlsFailure::Name), None),
        ("with its authority", &[&own, &root], &[&own], None, None),
        ("a chain", &[&leaf, &intermediate], &[&root], None, None),
        ("the intermediate is in the file alone", &[&leaf], &[&intermediate, &root], None, None),
        ("the root comes first", &[&leaf], &[&root, &intermediate], None, None),
        (
            "an intermediate and another root",
            &[&leaf, &intermediate],
            &[&intermediate, &own],
            untrusted,
            untrusted,
        ),
        ("the leaf and another root", &[&leaf], &[&leaf, &own], untrusted, untrusted),
    ] {
        let roots: String = trusted.iter().map(|made| made.pem()).collect();
        std::fs::write(&file, &roots).unwrap();
        for (mode, failure) in [("verify-full", failure), ("verify-ca", failure_of_any_name)] {
            let server = Server::start(Tls::Speaks(shows(chain)), cleartext(), &[Verdict::Accept]).await;
            if let Some(trusts) = libpq_trusts(server.port, &file, mode).await {
                assert_eq!(trusts, failure.is_none(), "{about}, {mode}: libpq");
            }
            let conninfo = format!(
                "host=localhost hostaddr=127.0.0.1 port={} user=myuser sslmode={mode} sslrootcert='{}'",
                server.port,
                file.display()
            );
            let said = machine.connector_of(&conninfo).unwrap().connect().await.map(drop);
            match failure {
                None => said.unwrap_or_else(|error| panic!("{about}, {mode}: {error:?}")),
                Some(failure) => {
                    assert_eq!(said.unwrap_err().kind(), ConnectErrorKind::Tls(failure), "{about}, {mode}");
                }
            }
        }
    }
}

/// libpq says so at each connection; there is no server for which such a file is right.
#[test]
fn a_file_without_a_root_is_an_error_of_its_own() {
    let root = made(parameters("Root", authority), None);
    let intermediate = made(parameters("Intermediate", authority), Some(&root));
    let error = pgentra_connect::Roots::from_pem(intermediate.pem().as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Config);
    assert!(error.hint().unwrap().contains("self-signed"), "{error:?}");
}

/// The authority that is missing is the one at the end, whatever the file completes.
#[tokio::test]
async fn the_authority_that_is_missing_is_named() {
    let machine = Machine::start().await;
    let root = made(parameters("The Root", authority), None);
    let intermediate = made(parameters("Intermediate", authority), Some(&root));
    let leaf = made(parameters("localhost", |_| {}), Some(&intermediate));
    let own = made(parameters("localhost", authority), None);
    for (chain, trusted, named) in [
        (&[&leaf][..], vec![&own, &intermediate], "The Root"),
        (&[&leaf, &intermediate], vec![&own], "The Root"),
        (&[&leaf], vec![&own], "Intermediate"),
        (&[&own], vec![&root], "localhost"),
    ] {
        let server = Server::start(Tls::Speaks(shows(chain)), cleartext(), &[Verdict::Accept]).await;
        let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", server.port);
        let roots: String = trusted.iter().map(|made| made.pem()).collect();
        let error = machine.connector(&conninfo, &roots).unwrap().connect().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(&format!("signed by \"{named}\"")), "{cause}");
    }
}

/// OpenSSL takes it; rustls does not, and it is no matter of trust.
#[tokio::test]
async fn a_server_with_the_certificate_of_an_authority_is_told_so() {
    let machine = Machine::start().await;
    let root = made(parameters("Root", authority), None);
    let server = made(parameters("localhost", authority), Some(&root));
    let server = Server::start(Tls::Speaks(shows(&[&server])), cleartext(), &[Verdict::Accept]).await;
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", server.port);
    let error = machine.connector(&conninfo, &root.pem()).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Tls(TlsFailure::Certificate));
    assert!(error.hint().unwrap().contains("without CA:TRUE"), "{error:?}");
}
