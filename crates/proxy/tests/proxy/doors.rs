//! Client authentication: TLS, certificates and roles.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use pgentra_emulator::certificates::Authority;
use pgentra_proxy::{
    CertificateName, CertificateRule, ClientAuth, Listener, ListenerError, Options, RoleMap, Users,
};
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::fields::Fields;
use pgentra_wire::startup::{ALPN, CancelRequest, ProtocolVersion, StartupMessage};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::{Client, NoTls};

use crate::certificates::{Paper, Papers};
use crate::fixture::{ROLE, Raw, Running, Stage, one, run};

fn with_tls(papers: &Papers, rule: Option<CertificateRule>) -> ClientAuth {
    ClientAuth { tls: Some(papers.tls(rule)), ..ClientAuth::default() }
}

pub(crate) fn start(user: &str) -> StartupMessage {
    StartupMessage::new(ProtocolVersion::V3_0, user).unwrap().with("database", "postgres").unwrap()
}

/// A session over a stream that the caller opened.
pub(crate) async fn session(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    user: &str,
    password: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(user).password(password).dbname("postgres");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The error for a client with this certificate.
async fn refusal(running: &Running, papers: &Papers, own: Option<&Paper>, user: &str) -> Fields {
    let mut raw = Raw::new(papers.connect(own, running.dial().await).await.unwrap());
    raw.start(&start(user)).await;
    raw.error().await
}

#[test]
fn other_machines_reach_no_listener_without_a_proof() {
    run(async {
        let papers = Papers::new();
        let users = || Some(Users::parse("").unwrap());
        for (client_auth, may) in [
            (ClientAuth::default(), false),
            (with_tls(&papers, None), false),
            (ClientAuth { users: users(), ..ClientAuth::default() }, false),
            (ClientAuth { users: users(), ..with_tls(&papers, None) }, true),
            (with_tls(&papers, Some(CertificateRule::Any)), true),
            (ClientAuth { danger_admit_unauthenticated: true, ..ClientAuth::default() }, true),
        ] {
            for beyond in ["0.0.0.0:0", "[::]:0"] {
                let listener = tokio::net::TcpListener::bind(beyond).await.unwrap();
                match Listener::tcp(listener, &client_auth) {
                    Ok(_) => assert!(may, "{client_auth:?}"),
                    Err(error) => {
                        assert!(!may && matches!(error, ListenerError::Unauthenticated(_)), "{error:?}");
                    }
                }
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            Listener::tcp(listener, &client_auth).unwrap();
        }
    });
}

#[test]
fn a_listener_with_tls_takes_no_one_without() {
    run(async {
        let papers = Papers::new();
        let running = Running::behind(with_tls(&papers, None)).await;
        let refused = running.refusal(ROLE, "postgres").await;
        assert_eq!(refused.code().code(), "28000");
        assert!(refused.message().contains("requires TLS"), "{refused:?}");
        assert!(refused.hint().unwrap().contains("sslmode=require"), "{refused:?}");

        let asked = papers.connect(None, running.dial().await).await.unwrap();
        assert_eq!(asked.get_ref().1.alpn_protocol(), Some(ALPN));
        let client = session(asked, ROLE, "").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        let connector = papers.trusting(None, &[ALPN]);
        let at_once = connector.connect("localhost".try_into().unwrap(), running.dial().await).await.unwrap();
        let client = session(at_once, ROLE, "").await.unwrap();
        let long = one(&client, "SELECT repeat('x', 3000000)").await;
        assert_eq!(long.len(), 3_000_000);

        // Direct TLS requires ALPN, so that a client of another protocol is refused.
        let connector = papers.trusting(None, &[]);
        let mut other =
            connector.connect("localhost".try_into().unwrap(), running.dial().await).await.unwrap();
        assert_eq!(other.read(&mut [0; 16]).await.unwrap_or(0), 0);
    });
}

#[test]
fn a_cancel_request_needs_no_tls_but_its_key() {
    run(async {
        let papers = Papers::new();
        let running = Running::behind(with_tls(&papers, Some(CertificateRule::Any))).await;
        let own = papers.client("app");
        let superuser = Stage::shared().await.superuser().await;
        let mut raw = Raw::new(papers.connect(Some(&own), running.dial().await).await.unwrap());
        raw.start(&start(ROLE).with("application_name", "cancel over TLS").unwrap()).await;
        let messages = raw.until_ready().await;
        let key = messages.into_iter().find_map(|message| match message {
            BackendMessage::BackendKeyData(key) => Some(key),
            _ => None,
        });
        let key = key.unwrap();
        raw.query("SELECT pg_sleep(3600)").await;
        Stage::shared().await.sleeping(&superuser, "cancel over TLS").await;
        let mut request = BytesMut::new();
        CancelRequest { process_id: key.process_id, key: key.key }.encode(&mut request);
        let mut plain = running.dial().await;
        plain.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(6).any(|bytes| bytes == b"C57014") {
            assert_ne!(raw.stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    });
}

#[test]
fn a_client_shows_a_certificate_of_the_authority() {
    run(async {
        let (papers, others) = (Papers::new(), Papers::new());
        let running = Running::behind(with_tls(&papers, Some(CertificateRule::Any))).await;
        let refused = refusal(&running, &papers, None, ROLE).await;
        assert_eq!(refused.sqlstate(), "28000");
        assert_eq!(refused.message(), "connection requires a valid client certificate");
        assert!(refused.hint().unwrap().contains("sslcert"), "{refused:?}");

        // A certificate of another authority fails the handshake. With TLS 1.3 a client learns of
        // it when it reads.
        let other = others.client(ROLE);
        let ended = match papers.connect(Some(&other), running.dial().await).await {
            Err(error) => error,
            Ok(mut stream) => stream.read_u8().await.unwrap_err(),
        };
        assert!(matches!(ended.kind(), ErrorKind::InvalidData | ErrorKind::ConnectionReset), "{ended:?}");

        // A server certificate is not valid for clients.
        let server = papers.server();
        let ended = match papers.connect(Some(&server), running.dial().await).await {
            Err(error) => error,
            Ok(mut stream) => stream.read_u8().await.unwrap_err(),
        };
        assert!(matches!(ended.kind(), ErrorKind::InvalidData | ErrorKind::ConnectionReset), "{ended:?}");

        let own = papers.client("anyone");
        let stream = papers.connect(Some(&own), running.dial().await).await.unwrap();
        let client = session(stream, ROLE, "").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
    });
}

#[test]
fn the_name_in_a_certificate_says_which_role() {
    run(async {
        let papers = Papers::new();
        let named = CertificateRule::Named(CertificateName::CommonName, None);
        let running = Running::behind(with_tls(&papers, Some(named))).await;
        let own = papers.client("other_user");
        let refused = refusal(&running, &papers, Some(&own), ROLE).await;
        assert_eq!(refused.sqlstate(), "28000");
        assert_eq!(refused.message(), format!("certificate authentication failed for user \"{ROLE}\""));
        assert!(refused.detail().unwrap().contains("\"other_user\""), "{refused:?}");
        let own = papers.client(ROLE);
        session(papers.connect(Some(&own), running.dial().await).await.unwrap(), ROLE, "").await.unwrap();

        let map = BTreeMap::from([("CN=other_user".to_owned(), vec![ROLE.to_owned()])]);
        let mapped = CertificateRule::Named(CertificateName::DistinguishedName, Some(map));
        running.proxy.set_client_auth(with_tls(&papers, Some(mapped)));
        let refused = refusal(&running, &papers, Some(&own), ROLE).await;
        assert!(refused.detail().unwrap().contains(&format!("\"CN={ROLE}\"")), "{refused:?}");
        let own = papers.client("other_user");
        session(papers.connect(Some(&own), running.dial().await).await.unwrap(), ROLE, "").await.unwrap();
    });
}

#[test]
fn a_new_certificate_is_for_new_clients_and_sessions_stay() {
    run(async {
        let (old, new) = (Papers::new(), Papers::new());
        let running = Running::behind(with_tls(&old, None)).await;
        let client = session(old.connect(None, running.dial().await).await.unwrap(), ROLE, "").await.unwrap();
        running.proxy.set_client_auth(with_tls(&new, None));
        assert!(
            old.connect(None, running.dial().await).await.is_err(),
            "the old authority is not the new one's"
        );
        let other = session(new.connect(None, running.dial().await).await.unwrap(), ROLE, "").await.unwrap();
        for client in [client, other] {
            assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        }
    });
}

#[test]
fn roles_are_mapped_and_those_that_are_not_are_refused() {
    run(async {
        let roles = RoleMap::from_iter([("app", ROLE), ("unknown", "unknown_role")]);
        let running = Running::behind(ClientAuth { roles: Some(roles), ..ClientAuth::default() }).await;
        let client = running.connect("app", "postgres").await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, ROLE);
        let refused = running.refusal(ROLE, "postgres").await;
        assert_eq!(refused.code().code(), "28000");
        assert!(refused.message().contains("role_map has no role"), "{refused:?}");
        assert!(refused.hint().unwrap().contains("\"myuser\" = "), "{refused:?}");
        // The map does not permit a role that the server refuses.
        assert_eq!(running.refusal("unknown", "postgres").await.code().code(), "28000");
    });
}

/// A server whose certificate can be replaced while it runs.
#[derive(Debug)]
struct Replaceable(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Replaceable {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap()))
    }
}

/// The proxy's connection to the server: each new session verifies the certificate anew, and
/// existing sessions go on.
#[test]
fn a_servers_new_certificate_is_verified_by_new_sessions() {
    run(async {
        let stage = Stage::shared().await;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let issued = |authority: &Authority| {
            let issued = authority.issue(&["localhost"]).unwrap();
            Arc::new(CertifiedKey::from_der(issued.chain, issued.key, &provider).unwrap())
        };
        let shown = Arc::new(Replaceable(Mutex::new(issued(stage.azure.certificates()))));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        // As PostgreSQL: a resumed session would trust the certificate of the first one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let port = stage.gateway_with(Arc::new(config)).await;
        let connector = stage.connector_to(port, "", stage.azure.certificates().pem());
        let running = Running::with(connector, Options::default()).await;
        let first = running.connect(ROLE, "postgres").await.unwrap();
        *shown.0.lock().unwrap() = issued(&Authority::generate().unwrap());
        let refused = running.refusal(ROLE, "postgres").await;
        assert_eq!(refused.code().code(), "08001", "{refused:?}");
        assert!(refused.message().contains("certificate"), "{refused:?}");
        assert_eq!(one(&first, "SELECT current_user::text").await, ROLE);
        *shown.0.lock().unwrap() = issued(stage.azure.certificates());
        let renewed = running.connect(ROLE, "postgres").await.unwrap();
        assert_eq!(one(&renewed, "SELECT current_user::text").await, ROLE);
    });
}
