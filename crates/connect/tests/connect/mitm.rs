//! A server in the middle, or in place of the right server, never receives a token.

use std::sync::Arc;
use std::time::Duration;

use pgentra_connect::{ConnectErrorKind, Connector, Layers, Refusal, Target, TlsFailure};
use pgentra_emulator::certificates::Authority;
use pgentra_system::{Env, Files};
use pgentra_wire::backend::{Authentication, BackendMessage, Mechanisms};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::server::{Log, Machine, Server, Tls, Verdict, Wants, bearer, certificate, cleartext, resource};

/// A machine that signs in, and the authority that it trusts.
struct Stage {
    machine: Machine,
    authority: Authority,
}

impl Stage {
    async fn new() -> Stage {
        Stage { machine: Machine::start().await, authority: Authority::generate().unwrap() }
    }

    /// A request for the password behind a certificate that is in order.
    fn verified(&self) -> Tls {
        Tls::Speaks(certificate(&self.authority, &["localhost"]))
    }

    /// Connects to a server that would take any token, and checks that it is sent none.
    async fn check(&self, why: &str, answers: (Tls, Wants), options: &str, expected: ConnectErrorKind) {
        let server = Server::start(answers.0, answers.1, &[Verdict::Accept]).await;
        let port = server.port;
        let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={port} user=myuser {options}");
        let connector = self.machine.connector(&conninfo, self.authority.pem()).unwrap();
        self.fails(why, &connector, &server, expected).await;
    }

    async fn fails(&self, why: &str, connector: &Connector, server: &Server, expected: ConnectErrorKind) {
        let error = connector.connect().await.unwrap_err();
        assert_eq!(error.kind(), expected, "{why}: {error:?}");
        let token = self.machine.token().await;
        let said = format!("{error} {error:?} {:?}", error.hint());
        assert!(!said.contains(&token), "{why}");
        if expected == ConnectErrorKind::Refused(Refusal::RoleNotMapped) {
            assert!(said.contains("\"myuser\" is not mapped to Entra"), "{why}: {said}");
            assert!(said.contains(&self.machine.azure.vm().object_id().to_string()), "{why}: {said}");
        }
        let log = server.log();
        assert_eq!(log.connections, 1, "{why}");
        assert_untouched(why, &log, &token);
    }
}

/// No token in any form, and before TLS not even the role's name.
fn assert_untouched(why: &str, log: &Log, token: &str) {
    let contains =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for bytes in [&log.wire, &log.plain] {
        for piece in std::iter::once(token).chain(token.split('.')) {
            assert!(!contains(bytes, piece), "{why}");
        }
    }
    assert!(!contains(&log.wire, "myuser"), "{why}");
    assert!(log.passwords.is_empty() && log.bearers.is_empty(), "{why}");
}

/// Invariant 1: no token without verified TLS, or for another question than the one it answers.
#[tokio::test]
async fn without_tls() {
    use TlsFailure::{Declined, ErrorInTheClear, NotTls};
    let stage = Stage::new().await;
    let cases: [(&str, &[u8], ConnectErrorKind); 7] = [
        ("the server says N", b"N", ConnectErrorKind::Tls(Declined)),
        (
            "N and at once a request for the password",
            b"NR\0\0\0\x08\0\0\0\x03",
            ConnectErrorKind::Tls(Declined),
        ),
        ("an error in the clear", b"E\0\0\0\x0cMforged\0\0", ConnectErrorKind::Tls(ErrorInTheClear)),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectErrorKind::Tls(NotTls)),
        ("GSS where TLS was asked for", b"G", ConnectErrorKind::Tls(NotTls)),
        (
            "S, then a request for the password in the clear",
            b"SR\0\0\0\x08\0\0\0\x03",
            ConnectErrorKind::Tls(NotTls),
        ),
        ("S, then noise", b"S\xff\xff\xff\xff\xff\xff\xff\xff", ConnectErrorKind::Tls(NotTls)),
    ];
    for (why, bytes, expected) in cases {
        stage.check(why, (Tls::Says(bytes), cleartext()), "", expected).await;
    }
    stage.check("hangs up", (Tls::HangsUp, cleartext()), "", ConnectErrorKind::Protocol).await;
}

/// Invariant 1: no token without verified TLS, or for another question than the one it answers.
#[tokio::test]
async fn with_a_wrong_certificate() {
    let stage = Stage::new().await;
    let (ours, other_authority) = (&stage.authority, Authority::generate().unwrap());
    let cases = [
        ("another name", certificate(ours, &["evil.example"]), TlsFailure::Name),
        ("a name below ours", certificate(ours, &["x.localhost"]), TlsFailure::Name),
        ("an address where a name was asked for", certificate(ours, &["127.0.0.1"]), TlsFailure::Name),
        ("another authority", certificate(&other_authority, &["localhost"]), TlsFailure::UnknownIssuer),
        ("signed by itself", self_signed(), TlsFailure::UnknownIssuer),
    ];
    for (why, config, failure) in cases {
        let expected = ConnectErrorKind::Tls(failure);
        stage.check(why, (Tls::Speaks(Arc::clone(&config)), cleartext()), "", expected).await;
        stage.check(why, (Tls::Speaks(Arc::clone(&config)), bearer()), "", expected).await;
        stage.check(why, (Tls::Direct(config), cleartext()), "sslnegotiation=direct", expected).await;
    }
}

/// The error names the authority whose certificate is missing.
#[tokio::test]
async fn an_authority_that_is_not_trusted_is_named() {
    let stage = Stage::new().await;
    let other_authority = Authority::named("An Unknown Root").unwrap();
    let tls = Tls::Speaks(certificate(&other_authority, &["localhost"]));
    let server = Server::start(tls, cleartext(), &[Verdict::Accept]).await;
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", server.port);
    let connector = stage.machine.connector(&conninfo, stage.authority.pem()).unwrap();
    let error = connector.connect().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("signed by \"An Unknown Root\""), "{cause}");
}

#[tokio::test]
async fn with_a_certificate_of_another_time() {
    let stage = Stage::new().await;
    for years in [(2001, 2002), (2901, 2902)] {
        let (root, config) = issued_for(years);
        let server = Server::start(Tls::Speaks(config), cleartext(), &[Verdict::Accept]).await;
        let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} user=myuser", server.port);
        let connector = stage.machine.connector(&conninfo, &root).unwrap();
        stage.fails("outdated", &connector, &server, ConnectErrorKind::Tls(TlsFailure::Validity)).await;
    }
}

/// `verify-ca` forgives the name and nothing else.
#[tokio::test]
async fn with_any_name_but_not_any_authority() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root.crt");
    std::fs::write(&file, stage.authority.pem()).unwrap();
    let connector = |port: u16| {
        let conninfo = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user=myuser sslmode=verify-ca sslrootcert='{}'",
            file.display()
        );
        let layers =
            Layers::gather(Some(&conninfo), &[], &Env::from_map([("A", "")]), &Files::real()).unwrap();
        let target = Target::resolve(&layers).unwrap();
        Connector::new(target, stage.machine.credential.clone(), resource()).unwrap()
    };
    let other_name = Tls::Speaks(certificate(&stage.authority, &["other.example"]));
    let server = Server::start(other_name, cleartext(), &[Verdict::Accept]).await;
    connector(server.port).connect().await.unwrap();

    let other_authority = Authority::generate().unwrap();
    for config in [certificate(&other_authority, &["localhost"]), self_signed(), issued_for((2001, 2002)).1] {
        let server = Server::start(Tls::Speaks(config), cleartext(), &[Verdict::Accept]).await;
        let error = connector(server.port).connect().await.unwrap_err();
        assert!(matches!(error.kind(), ConnectErrorKind::Tls(_)), "{error:?}");
        let token = stage.machine.token().await;
        assert_untouched("verify-ca", &server.log(), &token);
    }
}

/// Invariant 1: no token without verified TLS, or for another question than the one it answers.
#[tokio::test]
async fn asking_for_anything_but_the_token() {
    let stage = Stage::new().await;
    let refused = ConnectErrorKind::Refused(Refusal::RoleNotMapped);
    let ask = |authentication| Wants::Message(BackendMessage::Authentication(authentication));
    let sasl = |names: &[&str]| ask(Authentication::Sasl(Mechanisms::new(names.iter().copied()).unwrap()));
    let cases = [
        ("SCRAM", sasl(&["SCRAM-SHA-256"]), refused),
        ("SCRAM with channel binding", sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]), refused),
        ("another mechanism", sasl(&["PLAIN"]), refused),
        ("a mechanism of a longer name", sasl(&["OAUTHBEARER-PLUS", "XOAUTHBEARER"]), refused),
        ("a mechanism in small letters", sasl(&["oauthbearer"]), refused),
        ("MD5", ask(Authentication::Md5Password { salt: *b"salt" }), refused),
        ("Kerberos", ask(Authentication::KerberosV5), refused),
        ("GSSAPI", ask(Authentication::Gss), refused),
        ("SSPI", ask(Authentication::Sspi), refused),
        ("a SASL message out of order", ask(Authentication::SaslContinue("x".into())), refused),
        ("an unknown method", Wants::Bytes(b"R\0\0\0\x08\0\0\0\x63"), ConnectErrorKind::Protocol),
        ("a giant message", Wants::Bytes(b"R\x7f\xff\xff\xff\0\0\0\x03"), ConnectErrorKind::Protocol),
        ("a message of a running session", Wants::Bytes(b"D\0\0\0\x06\0\0"), ConnectErrorKind::Protocol),
        ("ready before the sign-in", Wants::Bytes(b"Z\0\0\0\x05I"), ConnectErrorKind::Protocol),
    ];
    for (why, wants, expected) in cases {
        stage.check(why, (stage.verified(), wants), "", expected).await;
    }
}

/// No answer: the time limit ends each stage. Time stands still but for the waiting.
#[tokio::test]
async fn a_server_that_says_nothing() {
    let stage = Stage::new().await;
    let conninfo = "host=localhost user=myuser connect_timeout=7";
    let connector = stage.machine.connector(conninfo, stage.authority.pem()).unwrap();
    let token = stage.machine.token().await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let (near, _far) = tokio::io::duplex(4096);
    let error = connector.connect_over(near, "localhost").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Timeout);
    assert!(error.to_string().contains("TLS handshake"), "{error}");
    assert_eq!(begun.elapsed().as_secs(), Duration::from_secs(7).as_secs());
    assert!(!format!("{error:?}").contains(&token));
}

fn self_signed() -> Arc<ServerConfig> {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    config(vec![issued.cert.der().clone()], &issued.signing_key)
}

/// An authority, and a certificate of it for these years.
fn issued_for((first, last): (i32, i32)) -> (String, Arc<ServerConfig>) {
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let root = rcgen::CertifiedIssuer::self_signed(root, rcgen::KeyPair::generate().unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(first, 1, 1);
    params.not_after = rcgen::date_time_ymd(last, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &root).unwrap();
    (root.pem(), config(vec![certificate.der().clone()], &key))
}

fn config(chain: Vec<rustls_pki_types::CertificateDer<'static>>, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Arc::new(config)
}
